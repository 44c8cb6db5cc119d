//! Settings of TLS and QUIC: TLS 1.3 with certificates on both sides, no resumption, no migration, everything bounded.

use std::{any::Any, sync::Arc};

use quinn::{
    IdleTimeout, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{RootCertStore, client::Resumption, crypto::CryptoProvider, server::WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;

use super::{
    BindError, Identity, LinkSettings, Name, Refusal, Role,
    codec::ALPN,
    defaults::{MAX_HANDSHAKES, RECEIVE_WINDOW},
    identity::role_and_name,
};

/// Named here rather than installed: a process default would be shared state, and whoever comes first would choose.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, BindError> {
    let mut store = RootCertStore::empty();
    for root in &identity.roots {
        store.add(root.clone()).map_err(tls)?;
    }
    Ok(Arc::new(store))
}

fn tls(error: impl std::fmt::Display) -> BindError {
    BindError::Tls(error.to_string())
}

/// What an endpoint shows to those who dial it. Any client with a certificate of our authorities gets through; its role is checked after.
pub(super) fn server_config(
    identity: &Identity,
    settings: &LinkSettings,
) -> Result<quinn::ServerConfig, BindError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider()).build().map_err(tls)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection checks certificates anew.
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    let mut config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).map_err(tls)?));
    config.transport_config(Arc::new(transport(settings)?));
    config.migration(false);
    config.max_incoming(MAX_HANDSHAKES);
    Ok(config)
}

/// How an endpoint dials. Whom it accepts is the server name it asks for.
pub(super) fn client_config(
    identity: &Identity,
    settings: &LinkSettings,
) -> Result<quinn::ClientConfig, BindError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).map_err(tls)?));
    config.transport_config(Arc::new(transport(settings)?));
    Ok(config)
}

fn transport(settings: &LinkSettings) -> Result<TransportConfig, BindError> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(settings.idle).map_err(tls)?))
        .keep_alive_interval(Some(settings.keep_alive))
        // One stream carries the frames; nothing else is accepted.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(u64::from(RECEIVE_WINDOW));
    // Services stand near each other; QUIC's own guess of 333 ms makes a lost first packet cost a second.
    transport.initial_rtt(std::time::Duration::from_millis(50));
    Ok(transport)
}

/// Who is at the other end, as proved by the certificate that TLS has checked.
pub(super) fn peer_of(connection: &quinn::Connection) -> Result<(Role, Name), Refusal> {
    let chain: Option<Box<Vec<CertificateDer<'static>>>> =
        connection.peer_identity().and_then(|any: Box<dyn Any>| any.downcast().ok());
    let own = chain.as_ref().and_then(|chain| chain.first());
    let own = own.ok_or_else(|| Refusal::PeerCertificate("it showed none".to_owned()))?;
    role_and_name(own).map_err(|error| Refusal::PeerCertificate(error.to_string()))
}
