//! The worker that is measured: as little server as there can be, so that what steering costs is as
//! large a part of a connection as it can be. It knows nothing of the launcher but its slot.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
};

/// Serves on this port of the loopback interface, for ever: reads a byte, answers with the
/// worker's slot, closes.
pub(super) fn serve(port: u16) -> io::Result<()> {
    let slot = env::var("REUSEPORT_LAUNCH_SLOT").ok();
    let slot: u8 = slot.and_then(|slot| slot.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (mut connection, _) = listener.accept()?;
        // A client that has gone is the client's affair.
        if connection.read_exact(&mut [0]).is_ok() {
            let _ = connection.write_all(&[slot]);
        }
    }
}
