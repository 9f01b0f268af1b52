//! How many connections are open, and whose they are: the kernel tells of each the cgroup in which its
//! listener was made, so nobody's open files have to be gone through.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    ops::ControlFlow,
};

use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::{
    constants::IPPROTO_TCP,
    inet::{InetResponse, StateFlags},
};

use super::{connections, sock_diag};

/// `INET_DIAG_CGROUP_ID` of `linux/inet_diag.h` (Linux 5.9).
const CGROUP_ID: u16 = 21;

/// The open connections of a cgroup: for each the inode number of its socket, 0 while it waits to be
/// accepted.
pub type Established = HashMap<u64, Vec<u32>>;

/// Lists the connections to these local ports that our side has not ended, by the id of the cgroup in
/// which their listener was made. One that has moved to another listener keeps its own. `None`: there are
/// more than `limit`, or the kernel does not tell their cgroups.
///
/// # Errors
/// Those of the netlink socket.
pub fn by_cgroup(ports: &BTreeSet<u16>, limit: usize) -> io::Result<Option<Established>> {
    let mut found = Established::new();
    let mut left = limit;
    let mut take = |response: InetResponse| {
        if !ports.contains(&response.header.socket_id.source_port) {
            return ControlFlow::Continue(());
        }
        let Some((cgroup, next)) = cgroup_of(&response).zip(left.checked_sub(1)) else {
            return ControlFlow::Break(());
        };
        left = next;
        found.entry(cgroup).or_default().push(response.header.inode);
        ControlFlow::Continue(())
    };
    let states = StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    for port in connections::asked(ports) {
        let all = sock_diag::dump_while(IPPROTO_TCP, states.clone(), port, &mut take)?;
        if all.is_break() {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

fn cgroup_of(response: &InetResponse) -> Option<u64> {
    let attribute = response.nlas.iter().find(|nla| nla.kind() == CGROUP_ID)?;
    let mut id = [0; 8];
    if attribute.value_len() != id.len() {
        return None;
    }
    attribute.emit_value(&mut id);
    Some(u64::from_ne_bytes(id))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
    };

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn each_is_listed_once_with_its_cgroup_or_none_is() {
        const OPEN: usize = 5;
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("bound");
        let ports = BTreeSet::from([to.port()]);
        let ours = |limit| by_cgroup(&ports, limit).expect("sock_diag");
        assert_eq!(ours(0), Some(Established::new()));

        let connect = |_| TcpStream::connect(to).expect("connected");
        let _clients: Vec<TcpStream> = (0..OPEN).map(connect).collect();
        let (accepted, _) = listener.accept().expect("accepted");
        let inode = fstat(accepted.as_fd()).expect("a socket").st_ino as u32;
        let found = ours(OPEN).expect("the kernel tells, and there are not more");
        let [(_, inodes)] = &found.into_iter().collect::<Vec<_>>()[..] else {
            panic!("one cgroup");
        };
        let mut inodes = inodes.clone();
        inodes.sort_unstable();
        assert_eq!(inodes, [0, 0, 0, 0, inode]);
        assert_eq!(ours(OPEN - 1), None);
    }
}
