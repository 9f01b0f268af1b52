//! What `Handshakes` promises: it counts what a list of them would, and no word that is found in the
//! map makes it overflow.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use launcher_common::{Handshakes, epoch};
use libfuzzer_sys::fuzz_target;

/// Epochs are numbered modulo this.
const EPOCHS: u64 = 1 << 20;

/// So many are counted at most in an epoch.
const COUNT_MAX: u64 = (1 << 22) - 1;

/// What happens to a member.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Event {
    Begun,
    Completed,
    Later,
}

fuzz_target!(|data: &[u8]| {
    // Too short an input has nothing to say.
    let mut input = Unstructured::new(data);
    let _ = any_word(&mut input).and_then(|()| agrees_with_a_list(&mut input));
});

fn any_word(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let handshakes = Handshakes(input.arbitrary()?);
    let at = epoch(input.arbitrary()?);
    assert!(at < EPOCHS);
    let count = u64::from(handshakes.count(at));
    assert!(count <= 2 * COUNT_MAX);
    let begun = u64::from(handshakes.begun(at).count(at));
    assert!(
        begun == count + 1 || begun == count && count >= COUNT_MAX,
        "{count}, then {begun}"
    );
    let completed = u64::from(handshakes.completed(at).count(at));
    assert_eq!(completed, count.saturating_sub(1));
    Ok(())
}

fn agrees_with_a_list(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let start = input.int_in_range(0..=EPOCHS - 1)?;
    let (mut handshakes, mut list, mut now) = (Handshakes::default(), Vec::new(), 0);
    for _ in 0..input.int_in_range(0..=400)? {
        let at = (start + now) % EPOCHS;
        match input.arbitrary()? {
            Event::Begun => {
                list.push(now);
                handshakes = handshakes.begun(at);
            }
            Event::Completed => {
                if !list.is_empty() {
                    list.remove(0);
                }
                handshakes = handshakes.completed(at);
            }
            Event::Later => now += input.int_in_range(1..=3)?,
        }
        list.retain(|begun| now - begun < 2);
        assert_eq!(
            handshakes.count((start + now) % EPOCHS) as usize,
            list.len()
        );
    }
    Ok(())
}
