//! The terminal while it is ours, and as it was before afterwards, however we end.

use std::{io, thread};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::{cursor::Show, execute},
};

/// The alternate screen in raw mode. Dropping it gives the terminal back; a panic does too, before it
/// is reported.
#[derive(Debug)]
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When it can't be; what was done is undone.
    pub fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| give_back())?;
        Ok(Self(terminal))
    }

    /// Draws it anew.
    ///
    /// # Errors
    /// When the terminal can't be written to.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if thread::panicking() {
            // Ratatui's panic hook has left the screen. To leave it again would put the cursor back to
            // where the report begins.
            let _ = execute!(io::stdout(), Show);
        } else {
            give_back();
        }
    }
}

/// What fails here fails because the terminal is gone.
fn give_back() {
    let _ = ratatui::try_restore();
    let _ = execute!(io::stdout(), Show);
}
