//! Who a service is: a certificate whose SAN carries its role and name, of an authority that both ends trust.
//!
//! A certificate for node `n1` has two DNS names: `n1.node.chat.internal` says who it is; `node.chat.internal` is what a dialer
//! asks for that would talk to any node. Both ends check by these names alone, whatever address they met at.
//!
//! [`Authority`] makes certificates: at start, for one process, or as files for a small cluster. In production an operator's own authority
//! issues them in the same form, and each process is told its files ([`Identity::load_files`]).

use std::{fmt, fs, io, path::Path, str::FromStr, sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Role;
use crate::time::Millis;

/// What ends every name in a certificate.
const DOMAIN: &str = "chat.internal";

/// File names in an identity's or authority's folder.
const AUTHORITY_CERTIFICATE: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const OWN_CERTIFICATE: &str = "identity.pem";
const OWN_KEY: &str = "identity.key";

/// How far clocks may differ: from so long before now a certificate is good.
const CLOCKS_DIFFER: Duration = Duration::from_secs(24 * 3600);

/// A service's name in certificates: a DNS label: 1 to 63 of `a-z`, `0-9` and `-`, and no `-` at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name, checked.
    ///
    /// # Errors
    /// [`IdentityError::Name`] when it is no DNS label in lower case.
    pub fn new(text: &str) -> Result<Self, IdentityError> {
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good { Ok(Self(text.into())) } else { Err(IdentityError::Name(text.chars().take(80).collect())) }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::new(text)
    }
}

/// What is wrong with a certificate, a key, a name or their files. All of it ends a start.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not a name that a certificate can carry.
    #[error("{0:?} is no link name: 1 to 63 of a-z, 0-9 and -, no - at either end")]
    Name(String),
    /// A certificate without exactly one name of the form `name.role.chat.internal`.
    #[error("the certificate does not say one role and name: {0}")]
    Certificate(String),
    /// A certificate could not be made or signed.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What a process needs to be somebody on links: its certificate and key, and the authorities it trusts.
pub struct Identity {
    role: Role,
    name: Name,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// The same as text, as files hold it.
    pem: Pem,
}

#[derive(Clone)]
struct Pem {
    chain: String,
    key: String,
    roots: String,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            role: self.role,
            name: self.name.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: self.roots.clone(),
            pem: self.pem.clone(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {})", self.role, self.name)
    }
}

impl Identity {
    /// The role in its certificate.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name in its certificate.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Reads `identity.pem` (the chain, own certificate first), `identity.key` and `authority.pem` (whom to trust) from a folder. Blocks;
    /// meant for the start.
    ///
    /// # Errors
    /// When a file is missing or holds something else, or the certificate does not say one role and name.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let file = |name| folder.join(name);
        Self::load_files(&file(AUTHORITY_CERTIFICATE), &file(OWN_CERTIFICATE), &file(OWN_KEY))
    }

    /// Likewise, from files of any name: whom to trust, the own chain, the own key. All are PEM.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_files(authority: &Path, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let pem = Pem { chain: read(certificate)?, key: read(key)?, roots: read(authority)? };
        let chain = certificates(certificate, &pem.chain)?;
        let roots = certificates(authority, &pem.roots)?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes())
            .map_err(|error| content(key, &format!("no private key: {error}")))?;
        let (role, name) = role_and_name(chain.first().map(|first| first.as_ref()).unwrap_or_default())?;
        Ok(Self { role, name, chain, key, roots, pem })
    }

    /// Until when it is good, together with its chain: the first end of any of them. Peers refuse it from then on.
    ///
    /// # Errors
    /// When one of them is no certificate.
    pub fn expires(&self) -> Result<Millis, IdentityError> {
        let ends = self.chain.iter().map(|one| {
            let (_, one) = X509Certificate::from_der(one)
                .map_err(|error| IdentityError::Certificate(error.to_string()))?;
            Ok(Millis::from_secs(one.validity().not_after.timestamp()))
        });
        ends.reduce(|one, other| Ok(one?.min(other?)))
            .unwrap_or_else(|| Err(IdentityError::Certificate("it is empty".to_owned())))
    }

    /// Writes own certificate and key as `NAME.pem` and `NAME.key`. The key's file can be read by its owner only.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn save_as(&self, folder: &Path, name: &str) -> Result<(), IdentityError> {
        make_folder(folder)?;
        write(&folder.join(format!("{name}.pem")), &self.pem.chain, false)?;
        write(&folder.join(format!("{name}.key")), &self.pem.key, true)
    }

    /// Writes what [`Self::load`] reads. The key's file can be read by its owner only.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        make_folder(folder)?;
        write(&folder.join(OWN_CERTIFICATE), &self.pem.chain, false)?;
        write(&folder.join(AUTHORITY_CERTIFICATE), &self.pem.roots, false)?;
        write(&folder.join(OWN_KEY), &self.pem.key, true)
    }
}

/// A certificate authority of one's own: who holds its key decides who may be what.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new one. Its certificates do not expire before it is forgotten: it is meant to live as long as a process or a test cluster.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The random part keeps two authorities apart by name, so that a stranger's certificate is refused as of an unknown issuer.
        let name = format!("chat development authority {:016x}", rand::random::<u64>());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), certificate: certificate.into(), issuer: Issuer::new(params, key) })
    }

    /// A certificate and key for a service, trusting this authority. It does not expire before it is forgotten.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn issue(&self, role: Role, name: &Name) -> Result<Identity, IdentityError> {
        self.issue_until(role, name, None)
    }

    /// Likewise, good from `now` for so long, to the day.
    ///
    /// # Errors
    /// When the system gives no randomness, or the end is no date.
    pub fn issue_for(
        &self,
        role: Role,
        name: &Name,
        now: Millis,
        lifetime: Duration,
    ) -> Result<Identity, IdentityError> {
        self.issue_until(role, name, Some((now, now.plus(lifetime))))
    }

    fn issue_until(
        &self,
        role: Role,
        name: &Name,
        validity: Option<(Millis, Millis)>,
    ) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([full_name(role, name), role_name(role)])?;
        if let Some((from, until)) = validity {
            let (year, month, day) = date(from.minus(CLOCKS_DIFFER))?;
            params.not_before = rcgen::date_time_ymd(year, month, day);
            let (year, month, day) = date(until)?;
            params.not_after = rcgen::date_time_ymd(year, month, day);
        }
        params.distinguished_name.push(DnType::CommonName, format!("{role} {name}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pem = Pem { chain: certificate.pem(), key: key.serialize_pem(), roots: self.pem.clone() };
        Ok(Identity {
            role,
            name: name.clone(),
            chain: vec![certificate.into()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            roots: vec![self.certificate.clone()],
            pem,
        })
    }

    /// Reads `authority.pem` and `authority.key` from a folder. Blocks; meant for the start.
    ///
    /// # Errors
    /// When a file is missing or holds something else.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(AUTHORITY_CERTIFICATE);
        let pem = read(&path)?;
        let certificate = certificates(&path, &pem)?
            .into_iter()
            .next()
            .ok_or_else(|| content(&path, "it holds no certificate"))?;
        let key = KeyPair::from_pem(&read(&folder.join(AUTHORITY_KEY))?)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, pem, issuer })
    }

    /// Writes what [`Self::load`] reads. The key's file can be read by its owner only.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        make_folder(folder)?;
        write(&folder.join(AUTHORITY_CERTIFICATE), &self.pem, false)?;
        write(&folder.join(AUTHORITY_KEY), &self.issuer.key().serialize_pem(), true)
    }
}

/// `node.chat.internal`: what a dialer asks for that takes any node.
pub(super) fn role_name(role: Role) -> String {
    format!("{role}.{DOMAIN}")
}

/// `n1.node.chat.internal`: what a dialer asks for that takes only n1.
pub(super) fn full_name(role: Role, name: &Name) -> String {
    format!("{name}.{role}.{DOMAIN}")
}

/// Who a certificate says its holder is. Only for one whose signature has been checked.
///
/// # Errors
/// When it is no certificate, or does not carry exactly one full name.
pub(super) fn role_and_name(certificate: &[u8]) -> Result<(Role, Name), IdentityError> {
    let bad = |why: &str| IdentityError::Certificate(why.to_owned());
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| bad(&error.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| bad(&error.to_string()))?
        .ok_or_else(|| bad("it has no subject alternative names"))?;
    let mut found = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(dns) => parse_full_name(dns),
        _ => None,
    });
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(bad("it has no DNS name of the form name.role.chat.internal")),
        (Some(_), Some(_)) => Err(bad("it has several DNS names of the form name.role.chat.internal")),
    }
}

fn parse_full_name(dns: &str) -> Option<(Role, Name)> {
    let (name, role) = dns.strip_suffix(DOMAIN)?.strip_suffix('.')?.split_once('.')?;
    Some((Role::parse(role)?, Name::new(name).ok()?))
}

/// The day, as rcgen takes it.
fn date(at: Millis) -> Result<(i32, u8, u8), IdentityError> {
    let none = || IdentityError::Certificate(format!("{at} is no date that it could carry"));
    let date = Timestamp::from_millisecond(at.0).map_err(|_| none())?.to_zoned(TimeZone::UTC).date();
    let part = |part: i8| u8::try_from(part).map_err(|_| none());
    Ok((i32::from(date.year()), part(date.month())?, part(date.day())?))
}

fn content(path: &Path, why: &str) -> IdentityError {
    IdentityError::Content { path: path.display().to_string(), why: why.to_owned() }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> IdentityError + '_ {
    move |error| IdentityError::File { path: path.display().to_string(), error }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(file_error(path))
}

/// At least one.
fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(content(path, "it holds no certificate")),
        Err(error) => Err(content(path, &error.to_string())),
    }
}

fn make_folder(folder: &Path) -> Result<(), IdentityError> {
    fs::create_dir_all(folder).map_err(file_error(folder))
}

fn write(path: &Path, text: &str, secret: bool) -> Result<(), IdentityError> {
    use std::io::Write as _;

    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if secret { 0o600 } else { 0o644 });
    }
    #[cfg(not(unix))]
    let _ = secret;
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(file_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_says_until_when_it_is_good() {
        let authority = Authority::generate().unwrap();
        let name = Name::new("n1").unwrap();
        let now = Millis::now();
        let soon = authority.issue_for(Role::Node, &name, now, DAY * 365).unwrap();
        let left = soon.expires().unwrap().since(now);
        assert!(left > DAY * 363 && left <= DAY * 365, "{left:?}");
        let folder = tempfile::tempdir().unwrap();
        authority.save(folder.path()).unwrap();
        soon.save_as(folder.path(), "n1").unwrap();
        let file = |name| folder.path().join(name);
        let loaded =
            Identity::load_files(&file(AUTHORITY_CERTIFICATE), &file("n1.pem"), &file("n1.key")).unwrap();
        assert_eq!((loaded.name(), loaded.expires().unwrap()), (&name, soon.expires().unwrap()));
        let endless = authority.issue(Role::Node, &name).unwrap();
        assert!(endless.expires().unwrap().since(now) > DAY * 10_000);
    }

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        for good in ["a", "node-1", "0", &"x".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", "*", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_says_its_role_and_name() {
        let authority = Authority::generate().unwrap();
        for role in Role::ALL {
            let name = Name::new("dispatcher").unwrap();
            let identity = authority.issue(role, &name).unwrap();
            assert_eq!(role_and_name(&identity.chain[0]).unwrap(), (role, name));
        }
    }

    #[test]
    fn a_certificate_without_one_full_name_is_nobody() {
        assert!(role_and_name(b"no certificate").is_err());
        let key = KeyPair::generate().unwrap();
        let names: [&[&str]; 4] = [
            &["node.chat.internal"],
            &["a.node.chat.internal", "b.node.chat.internal"],
            &["a.king.chat.internal"],
            &["a.node.chat.internal.example"],
        ];
        for names in names {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let certificate = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
            assert!(role_and_name(certificate.der()).is_err(), "{names:?}");
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        authority.save(folder.path()).unwrap();
        let again = Authority::load(folder.path()).unwrap();
        let identity = again.issue(Role::Node, &Name::new("n1").unwrap()).unwrap();
        let own = folder.path().join("n1");
        identity.save(&own).unwrap();
        let loaded = Identity::load(&own).unwrap();
        assert_eq!((loaded.role(), loaded.name().as_str()), (Role::Node, "n1"));
        assert_eq!(loaded.chain, identity.chain);
        assert_eq!(loaded.roots, vec![authority.certificate]);
        assert_eq!(loaded.key.secret_der(), identity.key.secret_der());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(own.join(OWN_KEY)).unwrap().permissions().mode() & 0o077, 0);
        }
        assert!(matches!(Identity::load(folder.path()), Err(IdentityError::File { .. })));
    }
}
