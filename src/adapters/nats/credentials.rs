//! The user and password, or the token, that the URLs of NATS servers contain.

use crate::error::BuildError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password { user: String, password: String },
    Token(String),
}

/// Returns what the URLs contain. The client logs in to each server alike, so they must agree.
pub(crate) fn url_credentials(urls: &[String]) -> Result<Option<Credentials>, BuildError> {
    let refuse = |problem, fix| BuildError::new("connection.servers", problem, fix);
    let mut all = Vec::new();
    for url in urls {
        let Some(userinfo) = split(url).1 else {
            all.push(None);
            continue;
        };
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        let decoded = (decode(user), password.map(decode));
        all.push(match decoded {
            (Some(user), Some(Some(password))) if !user.is_empty() => {
                Some(Credentials::Password { user, password })
            }
            (Some(token), None) if !token.is_empty() => Some(Credentials::Token(token)),
            _ => {
                return Err(refuse(
                    "has a URL whose user or password cannot be read",
                    "write nats://user:password@host, with special characters as %XX",
                ));
            }
        });
    }
    if all.windows(2).any(|pair| matches!(pair, [one, other] if one != other)) {
        return Err(refuse(
            "has URLs with different users",
            "write the same user and password into all of them, or leave them out and set \
             connection.user and connection.password",
        ));
    }
    Ok(all.into_iter().next().flatten())
}

/// Returns the URL without user and password, so that no log of the client shows them.
pub(crate) fn without_credentials(url: &str) -> String {
    split(url).0
}

/// Splits a URL into the rest and the part before the `@`.
fn split(url: &str) -> (String, Option<&str>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((userinfo, host)) => (format!("{scheme}://{host}{path}"), Some(userinfo)),
        None => (format!("{scheme}://{rest}"), None),
    }
}

/// Decodes `%XX`. `None` if the result is not text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(urls: &[&str]) -> Result<Option<Credentials>, BuildError> {
        url_credentials(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn urls_agree_on_one_user_or_token() {
        assert_eq!(of(&["nats://host:4222", "tls://other"]).unwrap(), None);
        let user = |user: &str, password: &str| Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let both = ["nats://u:p%40%3a@host:4222/", "u:p%40:@other"];
        assert_eq!(of(&both).unwrap(), Some(user("u", "p@:")));
        assert_eq!(of(&["nats://u:@host"]).unwrap(), Some(user("u", "")));
        let token = Credentials::Token("t/k".to_owned());
        assert_eq!(of(&["tls://t%2Fk@host"]).unwrap(), Some(token));
        for wrong in [
            &["nats://u:p@a", "nats://b"][..],
            &["nats://u:p@a", "nats://u:q@b"],
            &["nats://:p@a"],
            &["nats://@a"],
            &["nats://u:%zz@a"],
            &["nats://u:%e9@a"],
        ] {
            assert_eq!(of(wrong).unwrap_err().option(), "connection.servers", "{wrong:?}");
        }
        assert_eq!(without_credentials("nats://u:p@a:1/x@y"), "nats://a:1/x@y");
    }
}
