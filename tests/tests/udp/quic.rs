//! QUIC: a connection outlives the change of all other workers.

use std::{fs, sync::Arc, time::Duration};

use kernel_tests::{
    gate,
    launcher::{Launch, Launcher, example},
};
use quinn::{
    ClientConfig, Connection, Endpoint, TransportConfig,
    rustls::{RootCertStore, pki_types::CertificateDer},
};
use rcgen::CertifiedKey;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{IDLE, sum, v4, v6};

/// A fleet of `examples/quic.rs`, and what its clients need.
struct Fleet {
    launcher: Launcher,
    config: ClientConfig,
    runtime: Runtime,
    _files: TempDir,
}

impl Fleet {
    fn start(workers: u32, bind: &str) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["here.test".to_owned()]).expect("a certificate");
        let [certificate, key] = ["certificate", "key"].map(|name| files.path().join(name));
        fs::write(&certificate, cert.der()).expect("a new directory");
        fs::write(&key, signing_key.serialize_der()).expect("a new directory");
        let idle = format!("{}s", IDLE.as_secs());
        let launcher = Launch::of([
            example("quic").into_os_string(),
            bind.into(),
            certificate.into(),
            key.into(),
        ])
        .options(["--workers", &workers.to_string()])
        .options(["--udp-flow-timeout", &idle])
        .ready();
        launcher.members(workers.into());

        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(cert.der().to_vec()))
            .expect("our own certificate");
        let mut config =
            ClientConfig::with_root_certificates(Arc::new(roots)).expect("a certificate at least");
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(100)));
        config.transport_config(Arc::new(transport));
        Self {
            launcher,
            config,
            // The client is driven while a test waits for something else, too.
            runtime: Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime"),
            _files: files,
        }
    }

    /// A client and its connection; a handshake takes several datagrams each way.
    #[track_caller]
    fn connect(&self, to: std::net::SocketAddr) -> Client {
        let from = if to.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        self.runtime.block_on(async {
            let endpoint = Endpoint::client(kernel_tests::client::address(from)).expect("loopback");
            let connecting = endpoint
                .connect_with(self.config.clone(), to, "here.test")
                .expect("the configuration is valid");
            let connection = connecting.await.expect("the handshake succeeds");
            Client {
                endpoint,
                connection,
            }
        })
    }

    /// Asks on several streams of a connection at once. All are answered by one worker, with all that
    /// they asked; returns its process id.
    #[track_caller]
    fn ask(&self, client: &Client) -> u32 {
        const STREAMS: usize = 4;
        let question = [b'?'; 20_000];
        let mut pids = Vec::new();
        self.runtime.block_on(async {
            let mut open = Vec::new();
            for _ in 0..STREAMS {
                let (mut to, from) = client.connection.open_bi().await.expect("a stream");
                to.write_all(&question).await.expect("it is taken");
                to.finish().expect("it is open");
                open.push(from);
            }
            for mut stream in open {
                let answer = stream.read_to_end(1 << 20).await.expect("an answer");
                let space = answer.iter().position(|&byte| byte == b' ');
                let (pid, rest) = answer.split_at(space.expect("a name and what was asked"));
                assert!(rest[1..] == question, "{} bytes", rest.len());
                let pid = String::from_utf8_lossy(pid).parse();
                pids.push(pid.expect("a process id"));
            }
        });
        assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
        pids[0]
    }
}

struct Client {
    endpoint: Endpoint,
    connection: Connection,
}

impl Client {
    /// Ends its connection, and sends nothing more.
    fn end(self, fleet: &Fleet) {
        self.connection.close(0_u32.into(), b"");
        fleet.runtime.block_on(self.endpoint.wait_idle());
    }
}

#[test]
fn a_connection_outlives_scaling_and_reloads() {
    for (bind, to) in [("0.0.0.0:5353", v4()), ("[::]:5353", v6())] {
        let Some(_netns) = gate::enter(&[]) else {
            return;
        };
        let fleet = Fleet::start(2, bind);
        let clients: Vec<Client> = (0..8).map(|_| fleet.connect(to)).collect();
        let homes: Vec<u32> = clients.iter().map(|client| fleet.ask(client)).collect();
        let ask_all = |what: &str| {
            for (client, &home) in clients.iter().zip(&homes) {
                assert_eq!(fleet.ask(client), home, "{what}");
            }
        };

        fleet.launcher.scale(4);
        fleet.launcher.members(4);
        ask_all("after scale");

        let reload = fleet.launcher.begin(&["reload"]);
        fleet.launcher.replaced(0, 2);
        ask_all("in the reload");
        // The old ones have nothing of it, and their clients do not know.
        let new = fleet.connect(to);
        let status = fleet.launcher.status();
        let first = status.workers().iter().find(|worker| worker["slot"] == 0);
        let first = first.expect("the first slot");
        assert_ne!(first["pid"], fleet.ask(&new), "{}", status.0);
        new.end(&fleet);
        for client in clients {
            client.end(&fleet);
        }
        // Now they are idle.
        assert_eq!(reload.finish().success(), "");
        let pids = fleet.launcher.status().pids();
        assert!(homes.iter().all(|home| !pids.contains(home)));
        let client = fleet.connect(to);
        assert!(pids.contains(&fleet.ask(&client)));
        client.end(&fleet);
        assert_eq!(sum(&fleet.launcher, "fell_through_total"), 0);
        fleet.launcher.stop_clean();
    }
}
