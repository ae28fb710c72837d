//! TLS for requests: authorities, client certificates and keys, and the handshake, with rustls over our own
//! [`provider`]. Files are checked when the configuration is read, and read again for each connection, because
//! certificates are rotated under a running pod.

mod provider;
mod signatures;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::files;

/// Where distributions keep the bundle of public authorities: Debian and Alpine; Fedora; openSUSE; RHEL; Alpine.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to treat the server and who to be, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure: bool,
    pub server_name: Option<String>,
}

/// Reads the files that the options name and builds what a connection needs. Blocks on the disk.
///
/// # Errors
/// The option at fault (empty for none) and what is wrong with it.
pub fn load(options: &Options) -> Result<ClientConfig, (&'static str, String)> {
    let provider = Arc::new(provider::provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ("", error.to_string()))?;
    let builder = if options.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting(provider)))
    } else {
        builder.with_root_certificates(load_roots(options.ca_file.as_deref())?)
    };
    let mut config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = read_certificates(cert).map_err(|why| ("cert-file", why))?;
            let key_der = files::read(key, files::LARGEST_SECRET)
                .and_then(|pem| match PrivateKeyDer::from_pem_slice(&pem) {
                    Ok(key) => Ok(key),
                    Err(_) if pem.windows(10).any(|word| word == b" ENCRYPTED") => {
                        Err(format!("{}: the key is encrypted; write it without a passphrase", key.display()))
                    }
                    Err(_) => Err(format!("{}: it holds no private key in PEM", key.display())),
                })
                .map_err(|why| ("key-file", why))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|error| match error {
                Error::InconsistentKeys(_) => {
                    ("key-file", format!("{}: the key does not belong to {}", key.display(), cert.display()))
                }
                Error::General(why) => ("key-file", format!("{}: {why}", key.display())),
                error => ("cert-file", format!("{}: {}", cert.display(), explain(&error))),
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    // One request, one connection: a session to resume would be memory for nothing.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn load_roots(ca_file: Option<&Path>) -> Result<RootCertStore, (&'static str, String)> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in read_certificates(path).map_err(|why| ("ca-file", why))? {
            roots.add(certificate).map_err(|error| ("ca-file", format!("{}: {}", path.display(), explain(&error))))?;
        }
        return Ok(roots);
    }
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = match named {
        Some(path) => path,
        None => BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
            let why = "no certificate authorities: this image has no bundle in /etc/ssl or /etc/pki; \
                       name one with `ca-file` or SSL_CERT_FILE";
            ("ca-file", why.to_string())
        })?,
    };
    let certificates = read_certificates(&path).map_err(|why| ("ca-file", why))?;
    // A system's bundle may hold certificates that we cannot read; they are of no use, and no reason to fail.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(("ca-file", format!("{}: it holds no authority that can be used", path.display())));
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = files::read(path, files::LARGEST_SECRET)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{}: it holds no certificate in PEM", path.display()))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(format!("{}: its PEM is damaged", path.display())),
    }
}

/// Whether a name can stand in a certificate.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Speaks TLS over a connection.
///
/// # Errors
/// What went wrong, for a reader.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    options: &Options,
    host: &str,
    stream: S,
) -> Result<TlsStream<S>, String> {
    Prepared::new(options, host, None).await?.handshake(stream).await
}

/// What connections to one server have in common: their files have been read.
#[derive(Clone, Debug)]
pub struct Prepared {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl Prepared {
    /// Reads the files. The server has to choose `protocol` (RFC 7301), if one is given.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub async fn new(options: &Options, host: &str, protocol: Option<&str>) -> Result<Self, String> {
        let own = options.clone();
        let loaded = crate::task::blocking(move || load(&own)).await.map_err(|error| error.to_string())?;
        let mut config = loaded.map_err(|(key, why)| if key.is_empty() { why } else { format!("{key}: {why}") })?;
        config.alpn_protocols.extend(protocol.map(|protocol| protocol.as_bytes().to_vec()));
        let name = options.server_name.as_deref().unwrap_or(host);
        let server =
            ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` cannot be a server's name"))?;
        Ok(Self { config: Arc::new(config), server })
    }

    /// Speaks TLS over a connection.
    ///
    /// # Errors
    /// What went wrong, for a reader.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<TlsStream<S>, String> {
        let refused = || {
            let wanted = self.config.alpn_protocols.first().map(|name| String::from_utf8_lossy(name));
            format!("the server does not choose `{}` in the TLS handshake (ALPN)", wanted.unwrap_or_default())
        };
        let stream = TlsConnector::from(self.config.clone()).connect(self.server.clone(), stream).await;
        let stream = stream.map_err(|error| match rustls_error(&error) {
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => refused(),
            Some(error) => explain(error),
            None => closed(&error),
        })?;
        // A server that knows nothing of ALPN chooses nothing.
        if stream.get_ref().1.alpn_protocol() != self.config.alpn_protocols.first().map(Vec::as_slice) {
            return Err(refused());
        }
        Ok(stream)
    }
}

fn closed(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the server closed the connection during the TLS handshake".into();
    }
    format!("TLS handshake: {}", files::reason(error))
}

/// What rustls says in an I/O error, if it is from rustls.
pub fn why(error: &io::Error) -> Option<String> {
    rustls_error(error).map(explain)
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| inner.source()?.downcast_ref())
}

fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is signed by an unknown authority; name it with `ca-file`".into()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "the server's certificate is for another name; see `server-name`".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, .. }) => {
            let expected = expected.to_str();
            format!("the server's certificate is not for `{expected}` but for another name; see `server-name`")
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the server's certificate has a wrong signature".into()
        }
        Error::InvalidCertificate(CertificateError::BadEncoding) => "a certificate in it cannot be read".into(),
        // Of the library that checks certificates, which is not ours to name in a match.
        Error::InvalidCertificate(CertificateError::Other(other)) if other.to_string() == "CaUsedAsEndEntity" => {
            "the server's certificate is an authority's own (CA:TRUE); let it sign another for the server".into()
        }
        Error::InvalidCertificate(why) => format!("the server's certificate is refused: {why}"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a client certificate; name it with `cert-file` and `key-file`".into()
        }
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the server refused the TLS handshake: no common suite, or it wants a client certificate".into()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError),
        ) => format!("the server refused our client certificate: {alert:?}"),
        Error::AlertReceived(alert) => format!("the server ended the TLS connection: {alert:?}"),
        Error::InvalidMessage(_) => "the server does not speak TLS on this port".into(),
        error => format!("TLS: {error}"),
    }
}

/// Takes any certificate, as the kubelet does, but still wants the server to own its key.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
