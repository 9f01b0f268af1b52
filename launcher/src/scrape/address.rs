//! Where the metrics are.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

/// A value of `--metrics`: `9100` (on 127.0.0.1), `0.0.0.0:9100`, `[::1]:9100` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port from 1.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

const ALLOWED: &str = "allowed: a port from 1 to 65535, which is then on 127.0.0.1; an IP address \
                       and a port, as 0.0.0.0:9100 or [::1]:9100; or unix:PATH";

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err(format!("there is no path in it; {ALLOWED}")),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let address = match is_number {
            true => text
                .parse()
                .ok()
                .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            false => text.parse().ok(),
        };
        match address {
            Some(address) if address.port() == 0 => {
                Err(format!("nobody would know where port 0 is; {ALLOWED}"))
            }
            Some(address) => Ok(Self::Tcp(address)),
            None => Err(ALLOWED.to_owned()),
        }
    }
}

impl Address {
    /// The same, with a relative path meant from `directory`.
    #[must_use]
    pub fn from_directory(self, directory: &Path) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(directory.join(path)),
            Self::Tcp(_) => self,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("9100", "127.0.0.1:9100"),
            ("0.0.0.0:9100", "0.0.0.0:9100"),
            ("[::1]:1", "[::1]:1"),
            ("unix:a b", "unix:a b"),
            ("unix:/run/m.sock", "unix:/run/m.sock"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<Address>().unwrap(), address);
        }
        for wrong in [
            "",
            "0",
            "65536",
            "-1",
            ":9100",
            "localhost:9100",
            "1.2.3.4",
            "1.2.3.4:0",
            "unix:",
            "::1:9100",
            "/run/m",
            "９１００",
        ] {
            let why = wrong.parse::<Address>().unwrap_err();
            assert!(why.contains("allowed: a port from 1 to 65535"), "{wrong}");
        }
    }

    #[test]
    fn paths_are_relative_to_a_directory() {
        let at = |text: &str| {
            let address: Address = text.parse().unwrap();
            address.from_directory(Path::new("/srv")).to_string()
        };
        assert_eq!(at("unix:m.sock"), "unix:/srv/m.sock");
        assert_eq!(at("unix:/m.sock"), "unix:/m.sock");
        assert_eq!(at("1"), "127.0.0.1:1");
    }
}
