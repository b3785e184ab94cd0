//! Requests: one agent, redirects that keep secrets at home, failures sorted by what can be done about them.

use std::io;
use std::sync::Arc;

use ureq::http::{HeaderMap, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use crate::{HubError, Settings};

/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// Why there is no (whole) answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server could not be reached at all.
    NoWay(String),
    /// Trying again may help.
    Passing(String),
    /// Trying again cannot help.
    Final(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Sends requests.
pub(crate) struct Http {
    agent: Agent,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    /// Sent to the server of `url` alone, wherever it redirects to.
    pub(crate) token: Option<&'a str>,
    /// The first byte wanted.
    pub(crate) from: u64,
}

pub(crate) type Response = http::Response<Body>;

impl Http {
    pub(crate) fn new(settings: &Settings) -> Result<Self, HubError> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.certificates {
            let pem = std::fs::read(path).map_err(HubError::io("read the certificates in", path))?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates.collect())));
        }
        let answer = Some(settings.answer_timeout);
        let config = Agent::config_builder()
            .user_agent(concat!("defrost/", env!("CARGO_PKG_VERSION")))
            // A file's length and checksum are those of the file, not of a compressed copy.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(answer)
            .timeout_connect(answer)
            .timeout_recv_response(answer)
            .timeout_per_read(Some(settings.stall_timeout))
            .tls_config(tls.build());
        Ok(Self { agent: config.build().new_agent() })
    }

    /// Asks for the file.
    pub(crate) fn get(&self, request: Request<'_>) -> Result<Response, Failure> {
        self.follow(
            request,
            |url, token| {
                let mut call = self.agent.get(url);
                if let Some(token) = token {
                    call = call.header(header::AUTHORIZATION, format!("Bearer {token}"));
                }
                if request.from > 0 {
                    call = call.header(header::RANGE, format!("bytes={}-", request.from));
                }
                call.call()
            },
            |_| false,
        )
    }

    /// Asks for what is known of a file; a redirect that `is_enough` accepts is the answer.
    pub(crate) fn head(
        &self,
        request: Request<'_>,
        is_enough: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Response, Failure> {
        self.follow(
            request,
            |url, token| {
                let mut call = self.agent.head(url);
                if let Some(token) = token {
                    call = call.header(header::AUTHORIZATION, format!("Bearer {token}"));
                }
                call.call()
            },
            is_enough,
        )
    }

    /// Follows redirects by hand: a token never leaves the server it is for.
    fn follow(
        &self,
        request: Request<'_>,
        send: impl Fn(&str, Option<&str>) -> Result<Response, ureq::Error>,
        is_enough: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Response, Failure> {
        let mut url = request.url.to_owned();
        for _ in 0..=REDIRECTS {
            let token = request.token.filter(|_| origin(&url) == origin(request.url));
            let response = send(&url, token).map_err(failure)?;
            let status = response.status().as_u16();
            if !response.status().is_redirection() || status == 304 || is_enough(response.headers()) {
                return match status {
                    408 | 429 | 500..=599 => {
                        Err(Failure::Passing(format!("the server answered {}", response.status())))
                    }
                    _ => Ok(response),
                };
            }
            let Some(location) = text(response.headers(), "location") else {
                return Err(answer(&url, "a redirect to nowhere").into());
            };
            url = join(&url, location);
        }
        Err(answer(request.url, format!("more than {REDIRECTS} redirects")).into())
    }
}

/// A header's text.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// [`HubError::Answer`].
pub(crate) fn answer(url: &str, what: impl Into<String>) -> HubError {
    HubError::Answer { url: url.into(), what: what.into() }
}

/// Sorts what the library says.
pub(crate) fn failure(error: ureq::Error) -> Failure {
    use ureq::Timeout as T;
    match error {
        ureq::Error::Io(e) => io_failure(&e),
        ureq::Error::Timeout(T::Resolve | T::Connect) => Failure::NoWay("it took too long to connect".into()),
        ureq::Error::Timeout(_) => Failure::Passing("the server fell silent".into()),
        ureq::Error::Protocol(e) => Failure::Passing(e.to_string()),
        ureq::Error::HostNotFound => Failure::NoWay("the server's name was not found".into()),
        other => io_failure(&io::Error::other(other.to_string())),
    }
}

/// Whether a connection broke or never was.
pub(crate) fn io_failure(error: &io::Error) -> Failure {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionReset
        | K::ConnectionAborted
        | K::UnexpectedEof
        | K::BrokenPipe
        | K::TimedOut
        | K::WouldBlock
        | K::Interrupted => Failure::Passing(error.to_string()),
        _ => Failure::NoWay(error.to_string()),
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Where a redirect of `base` to `location` leads (RFC 3986, without dot segments).
fn join(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.into();
    }
    if let Some(rest) = location.strip_prefix("//") {
        let scheme = base.split("://").next().unwrap_or("https");
        return format!("{scheme}://{rest}");
    }
    if location.starts_with('/') {
        return format!("{}{location}", origin(base));
    }
    let path = base.split(['?', '#']).next().unwrap_or(base);
    let folder = path.rfind('/').filter(|&at| at >= origin(base).len()).map_or(path, |at| &path[..at]);
    format!("{folder}/{location}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base = "https://h:8/a/resolve/main/f?x=1";
        assert_eq!(join(base, "https://cdn/b"), "https://cdn/b");
        assert_eq!(join(base, "//cdn/b"), "https://cdn/b");
        assert_eq!(join(base, "/b/resolve/main/f"), "https://h:8/b/resolve/main/f");
        assert_eq!(join(base, "g"), "https://h:8/a/resolve/main/g");
        assert_eq!(join("https://h", "g"), "https://h/g");
        assert_eq!(origin("http://h:1?x"), "http://h:1");
        assert_ne!(origin("http://h:1/a"), origin("http://h:10/a"));
    }
}
