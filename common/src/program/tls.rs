//! The certificate files of a program that links.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    link::{self, Identity, Role},
    time::Millis,
};

/// How long before its end a certificate is worth a warning each day.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where a program's certificate is: PEM files, read at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whom to trust: one or more authorities.
    pub authority: PathBuf,
    /// The own certificate, and what leads from it to an authority; `NAME.pem` beside the authority when it is not said.
    pub certificate: Option<PathBuf>,
    /// Its key; `NAME.key` beside the authority when it is not said.
    pub key: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { authority: PathBuf::from("certificates/authority.pem"), certificate: None, key: None }
    }
}

impl Tls {
    /// Reads the files, and looks whether they are good for this role and name. Gives a line about them.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn load(&self, role: Role, name: &str) -> anyhow::Result<(Identity, String)> {
        let beside = |ending: &str| self.authority.with_file_name(format!("{name}.{ending}"));
        let certificate = self.certificate.clone().unwrap_or_else(|| beside("pem"));
        let key = self.key.clone().unwrap_or_else(|| beside("key"));
        let identity = Identity::load_files(&self.authority, &certificate, &key).context(
            "links need certificates: name them with tls.authority, tls.certificate and tls.key; for development, `dispatcher certificates` \
             makes some",
        )?;
        let file = certificate.display();
        if identity.role() != role || identity.name().as_str() != name {
            bail!(
                "{file} is the certificate of {} {}, and this is {role} {name}; set `name`, or have one made for {name}.{role}.chat.internal",
                identity.role(),
                identity.name()
            );
        }
        link::check(&identity).with_context(|| format!("{file} and {}", key.display()))?;
        let end = identity.expires()?;
        let now = Millis::now();
        if end <= now {
            bail!("{file} has expired, at {end}: peers refuse it; have a new one made");
        }
        let days = end.since(now).as_secs() / DAY.as_secs();
        Ok((identity, format!("{file}: {role} {name}, good for {days} days, until {end}")))
    }
}

/// Warns each day when the certificate nears its end, until `shutdown`.
pub async fn watch(identity: Identity, shutdown: CancellationToken) {
    let Ok(end) = identity.expires() else { return };
    loop {
        let left = end.since(Millis::now());
        if left.is_zero() {
            tracing::error!(%end, "this service's certificate has expired: peers refuse it; give it a new one and restart it");
        } else if left < SOON {
            let days = left.as_secs() / DAY.as_secs();
            tracing::warn!(%end, days, "this service's certificate expires soon: give it a new one and restart it");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(DAY)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Authority, Name};

    #[test]
    fn a_certificate_of_another_or_a_past_one_is_refused_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let tls = Tls { authority: file("authority.pem"), certificate: Some(file("n1.pem")), key: None };
        let said = |name: &str| format!("{:#}", tls.load(Role::Node, name).unwrap_err());
        assert!(said("n1").contains("n1.pem") && said("n1").contains("dispatcher certificates"));

        let authority = Authority::generate().unwrap();
        authority.save(folder.path()).unwrap();
        let n1 = Name::new("n1").unwrap();
        let now = Millis::now();
        authority.issue_for(Role::Node, &n1, now, DAY * 400).unwrap().save_as(folder.path(), "n1").unwrap();
        let (_, line) = tls.load(Role::Node, "n1").unwrap();
        assert!(line.contains("node n1, good for 39"), "{line}");
        std::fs::copy(file("n1.key"), file("n2.key")).unwrap();
        assert!(said("n2").contains("n2.node.chat.internal"), "{}", said("n2"));

        let other = authority.issue(Role::Node, &n1).unwrap();
        other.save_as(folder.path(), "other").unwrap();
        std::fs::copy(file("other.key"), file("n1.key")).unwrap();
        assert!(said("n1").contains("n1.key"), "{}", said("n1"));

        let past = Millis(now.0 - 500 * 24 * 3_600_000);
        authority.issue_for(Role::Node, &n1, past, DAY * 400).unwrap().save_as(folder.path(), "n1").unwrap();
        assert!(said("n1").contains("has expired"), "{}", said("n1"));
    }
}
