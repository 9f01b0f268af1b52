//! A QUIC server on quinn, as one would write it: it answers each stream with its process id and what
//! it was sent, and knows nothing of the launcher.
//!
//!     quic ADDRESS CERTIFICATE KEY
//!
//! Both are files in DER.

use std::{env, error::Error, fs, net::SocketAddr, process};

use quinn::{
    Connection, Endpoint, ServerConfig,
    rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

/// More than a test sends on one stream.
const REQUEST_MAX: usize = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, certificate, key] = &arguments[..] else {
        return Err("usage: quic ADDRESS CERTIFICATE KEY".into());
    };
    let certificate = CertificateDer::from(fs::read(certificate)?);
    let key = PrivatePkcs8KeyDer::from(fs::read(key)?);
    let config = ServerConfig::with_single_cert(vec![certificate], key.into())?;
    let endpoint = Endpoint::server(config, address.parse::<SocketAddr>()?)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(connection).await;
            }
        });
    }
    Ok(())
}

/// Answers the streams of a connection until its client closes it.
async fn serve(connection: Connection) {
    while let Ok((mut answer, mut question)) = connection.accept_bi().await {
        tokio::spawn(async move {
            if let Ok(text) = question.read_to_end(REQUEST_MAX).await {
                let name = format!("{} ", process::id());
                // A client that does not wait for its answer is no fault of ours.
                let _ = answer.write_all(name.as_bytes()).await;
                let _ = answer.write_all(&text).await;
                let _ = answer.finish();
            }
        });
    }
}
