//! Names as both sides write them: one spelling each, lower case.

/// `example.com`: labels of letters, digits and inner hyphens, at least two, the last one of letters.
pub(crate) fn is_hostname(text: &str) -> bool {
    let labels: Vec<&str> = text.split('.').collect();
    text.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(|label| is_label(label))
        && labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// A team is one label: the part before `.cloudflareaccess.com`.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The tag of an Access application: 64 hexadecimal digits.
pub(crate) fn is_audience(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

/// A tunnel's id, a UUID.
pub(crate) fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || is_hex(byte))
}

/// `{id}.execute-api.{region}.amazonaws.com`: the one origin a tunnel may have.
pub(crate) fn is_api_host(text: &str) -> bool {
    let mut parts = text.split('.');
    let id = parts.next().is_some_and(|id| {
        (8..=12).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    let service = parts.next() == Some("execute-api");
    let region = parts.next().is_some_and(|region| {
        is_label(region) && region.contains('-') && region.ends_with(|last: char| last.is_ascii_digit())
    });
    id && service && region && parts.eq(["amazonaws", "com"])
}

/// A stage of a REST API.
pub(crate) fn is_stage(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for good in ["api.example.com", "a.b", "x-1.example.com"] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in [
            "",
            "example",
            "Api.example.com",
            "*.example.com",
            "api.example.com.",
            "api..com",
            "-a.com",
            "a.com:443",
            "a.1",
        ] {
            assert!(!is_hostname(bad), "{bad}");
        }
        assert!(is_uuid("6ff42ae2-765d-4adf-8112-31c55c1551ef"));
        assert!(!is_uuid("6FF42AE2-765d-4adf-8112-31c55c1551ef"));
        assert!(!is_uuid("6ff42ae2765d4adf811231c55c1551ef"));
    }

    #[test]
    fn the_origin_is_an_api_and_nothing_like_one() {
        for good in
            ["a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com", "a1b2c3d4e5.execute-api.us-gov-west-1.amazonaws.com"]
        {
            assert!(is_api_host(good), "{good}");
        }
        for bad in [
            "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com.example.com",
            "a1b2c3d4e5.execute-api.eu-central-1.example.com",
            "a1b2c3d4e5-vpce-1.execute-api.eu-central-1.amazonaws.com",
            "x.a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
            "a1b2c3d4e5.execute-api.eu.amazonaws.com",
            "a1b2c3d4e5.s3.eu-central-1.amazonaws.com",
            "A1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
            "",
        ] {
            assert!(!is_api_host(bad), "{bad}");
        }
    }
}
