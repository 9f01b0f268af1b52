//! Takes the terminal over as `top` does, draws, and panics.

use std::io;

use reuseport_launch::top::Screen;

fn main() -> io::Result<()> {
    let mut screen = Screen::open()?;
    screen.draw(|frame| {
        assert_eq!(frame.area().width, 0, "panics while it draws");
    })
}
