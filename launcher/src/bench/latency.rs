//! Latencies as text: HDR histograms, as the load generator hands them on and as reports hold them.
//!
//! The text is base64 (RFC 4648, with padding) of the V2 format, deflated: what the HDR histogram
//! libraries of other languages read as well.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2DeflateSerializer},
};

use crate::failure::Failure;

/// The longest latency that is told apart from longer ones: a minute, in ns.
const LONGEST: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds up to a minute, with 3 significant digits. Record with
/// `saturating_record`: what took longer counts as a minute.
///
/// # Errors
/// Never, with these bounds.
pub(crate) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| {
        Failure::new(
            "cannot count latencies",
            error,
            "this is a fault of the program: report it",
        )
    })
}

/// The histogram as text.
pub(crate) fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => STANDARD.encode(bytes),
        // Writing to memory does not fail, and no count comes near 2^63. No text is no histogram.
        Err(_) => String::new(),
    }
}

/// The histogram of a text.
///
/// # Errors
/// When it is not one of [`encode`].
pub(crate) fn decode(text: &str) -> Result<Histogram<u64>, Failure> {
    let failure = |why: &dyn std::fmt::Display| {
        Failure::new(
            "cannot read a histogram of latencies",
            why,
            "it is base64 of an HDR histogram in its V2 deflate form",
        )
    };
    let bytes = STANDARD.decode(text).map_err(|error| failure(&error))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| failure(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut latencies = histogram().unwrap();
        for latency in (1..100_000_u64).map(|n| n * 1_000) {
            latencies.saturating_record(latency);
        }
        latencies.saturating_record(u64::MAX);
        let text = encode(&latencies);
        assert!(text.is_ascii() && text.len() < 50_000, "{}", text.len());
        let decoded = decode(&text).unwrap();
        assert_eq!(decoded, latencies);
        assert_eq!(decoded.len(), 100_000);
        let median = decoded.value_at_quantile(0.5) as f64;
        assert!((median / 50_000_000.0 - 1.0).abs() < 0.001, "{median}");
        assert!(decoded.max() >= LONGEST, "{}", decoded.max());
    }

    #[test]
    fn an_empty_one_is_one() {
        let empty = histogram().unwrap();
        assert_eq!(decode(&encode(&empty)).unwrap().len(), 0);
    }

    #[test]
    fn what_is_none_is_refused() {
        let whole = encode(&histogram().unwrap());
        for text in ["", "AAAA", "no base64!", &whole[..24]] {
            let failure = decode(text).unwrap_err();
            assert_eq!(failure.what, "cannot read a histogram of latencies");
        }
    }
}
