//! URLs that somebody outside gives us to send to: which are taken. Names are not resolved here: to what they lead is checked whenever
//! something is sent.

use std::net::IpAddr;

use common::address::Networks;
use url::{Host, Url};

use crate::check::Checks;

/// Characters of a URL, in the form in which it is requested.
pub(super) const URL_CHARS: usize = 2_048;

/// Whose URL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// An application's own server.
    Webhook,
    /// A push service, which has TLS, but for those of an operator's own that `allow` names by their address.
    Browser,
}

/// A URL to which something may be sent.
pub(super) fn target(checks: &mut Checks, param: &str, text: &str, of: Of, allow: &Networks) {
    if let Some(fault) = fault(text, of, allow) {
        checks.wrong(param, fault);
    }
}

fn fault(text: &str, of: Of, allow: &Networks) -> Option<String> {
    // What a browser would mend is not mended here: both ends of a line of text should read it alike.
    if text.chars().any(|char| char.is_whitespace() || char.is_control() || char == '\\') {
        return Some("must not contain spaces, control characters or backslashes".into());
    }
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = rest.filter(|rest| !rest.starts_with('/')) else {
        return Some("must begin with https:// or http:// and name a host".into());
    };
    let Ok(url) = Url::parse(text) else { return Some("must be a URL".into()) };
    if text.len().max(url.as_str().len()) > URL_CHARS {
        return Some(format!("must have at most {URL_CHARS} characters"));
    }
    // Whether or not there is anything in front of the @.
    if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
        return Some("must not contain a user name or a password".into());
    }
    if url.fragment().is_some() {
        return Some("must not contain a fragment: it is not sent".into());
    }
    let literal: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) | None => None,
    };
    if literal.is_some_and(|address| !allow.may_reach(address)) {
        return Some("must not be an address of an internal network: the operator has not allowed it".into());
    }
    let own = literal.is_some_and(|address| allow.contains(address));
    if of == Of::Browser && url.scheme() != "https" && !own {
        return Some("must begin with https://".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Networks {
        Networks::parse(["10.9.0.0/16", "fd00::1"]).unwrap()
    }

    fn faults(text: &str) -> Option<String> {
        fault(text, Of::Webhook, &allowed())
    }

    #[test]
    fn no_1_a_webhook_is_any_url_of_the_web() {
        let long = format!("https://example.org/{}", "x".repeat(URL_CHARS - 20));
        for good in [
            "https://example.org",
            "HTTPS://Example.org:8443/hooks/7?a=b&c=%20d",
            "http://example.org/",
            "https://bücher.example/straße",
            "https://8.8.8.8/x@y",
            "https://[2606:4700::1111]:443/",
            "http://10.9.8.7:8080/",
            "http://[fd00::1]/",
            "http://[::ffff:10.9.8.7]/",
            "http://localhost/",
            &long,
        ] {
            assert_eq!(faults(good), None, "{good}");
        }
        let long = format!("https://example.org/{}", "x".repeat(URL_CHARS - 19));
        let escaped = format!("https://example.org/{}", "é".repeat(400));
        for bad in [
            "",
            "example.org",
            "//example.org",
            "ftp://example.org",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https:example.org",
            "https:/example.org",
            "https:///example.org",
            "https://",
            "https://?x",
            "https:\\\\example.org",
            "https://example.org\\@10.0.0.1/",
            "https://exa mple.org",
            " https://example.org",
            "https://example.org/\n",
            "https://example.org/\0",
            "https://ana@example.org/",
            "https://ana:secret@example.org/",
            "https://@example.org/",
            "https://:@example.org/",
            "https://example.org/#",
            "https://example.org/#part",
            "https://example.org:99999/",
            "https://[::1/",
            "https://exa%00mple.org/",
            "https://xn--/",
            &long,
            &escaped,
        ] {
            assert!(faults(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn no_3_no_spelling_of_an_internal_address_is_taken() {
        for inside in [
            "http://127.0.0.1/",
            "http://127.0.0.1:9092/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.0.0.1./",
            "http://127。0。0。1/",
            "http://１２７.0.0.1/",
            "http://%31%32%37.0.0.1/",
            "http://0/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.100.100.200/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::a00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://[ff02::1]/",
        ] {
            let fault = faults(inside);
            assert!(fault.as_ref().is_some_and(|fault| fault.contains("internal")), "{inside}: {fault:?}");
        }
    }

    #[test]
    fn no_1_a_browser_is_reached_by_https_but_through_an_operators_own_service() {
        let browsers = |text| fault(text, Of::Browser, &allowed());
        for good in ["https://push.example.org/send/abc", "https://10.9.8.7/send", "http://10.9.8.7:99/send"]
        {
            assert_eq!(browsers(good), None, "{good}");
        }
        for bad in ["http://push.example.org/send/abc", "http://8.8.8.8/send", "https://127.0.0.1/send/abc"] {
            assert!(browsers(bad).is_some(), "{bad}");
        }
    }
}
