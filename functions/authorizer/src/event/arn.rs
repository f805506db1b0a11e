//! The ARN of what is asked for.

use shared::name::Malformed;

/// `arn:aws:execute-api:{region}:{account}:{api}/{stage}/{method}/{path}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodArn {
    /// Everything up to and including the stage.
    prefix: String,
    stage: String,
    method: String,
    path: String,
}

impl MethodArn {
    /// Takes an ARN apart. What stands after the stage is the caller's and is not judged here.
    pub fn parse(arn: &str) -> Result<Self, Malformed> {
        let bad = Malformed("method ARN");
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().ok_or(bad);
        let (scheme, partition, service, region, account) = (next()?, next()?, next()?, next()?, next()?);
        let mut rest = next()?.splitn(4, '/');
        let mut next = || rest.next().ok_or(bad);
        let (api, stage, method) = (next()?, next()?, next()?);
        let path = format!("/{}", rest.next().unwrap_or_default());
        // HTTP APIs have a stage of this very name.
        let is_stage = plain(stage) || stage == "$default";
        if scheme != "arn"
            || service != "execute-api"
            || ![partition, region, account, api].into_iter().all(plain)
            || !is_stage
        {
            return Err(bad);
        }
        let prefix = format!("arn:{partition}:execute-api:{region}:{account}:{api}/{stage}");
        Ok(Self { prefix, stage: stage.to_owned(), method: method.to_owned(), path })
    }

    /// The ARN of one method on one path of this stage. Neither may come from the caller unchecked.
    pub fn with(&self, method: &str, path: &str) -> String {
        format!("{}/{method}{path}", self.prefix)
    }

    /// Every method of this stage.
    pub fn everything(&self) -> String {
        format!("{}/*", self.prefix)
    }

    /// The stage's name.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// The method that was asked for, as it stands in the ARN.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path that was asked for, as it stands in the ARN: the caller's own bytes.
    pub fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "arn:aws:execute-api:us-east-1:123456789012:abc123";

    #[test]
    fn a_method_arn_is_taken_apart_or_refused() {
        let arn = MethodArn::parse(&format!("{API}/v1/GET/files/*")).unwrap();
        assert_eq!(arn.with("GET", "/files/1"), format!("{API}/v1/GET/files/1"));
        assert_eq!(arn.everything(), format!("{API}/v1/*"));
        assert_eq!((arn.stage(), arn.method(), arn.path()), ("v1", "GET", "/files/*"));
        let root = MethodArn::parse(&format!("{API}/$default/GET/")).unwrap();
        assert_eq!((root.stage(), root.path()), ("$default", "/"));
        for bad in [
            "",
            API,
            &format!("{API}/v1"),
            &format!("{API}/${{x}}/GET/"),
            &format!("{API}/$Default/GET/"),
            &format!("{API}/*/GET/"),
            "arn:aws:execute-api:*:123456789012:abc123/v1/GET/",
            "arn:aws:execute-api:us-east-1:123456789012:*/v1/GET/",
            "arn:aws:lambda:us-east-1:123456789012:abc123/v1/GET/",
        ] {
            assert!(MethodArn::parse(bad).is_err(), "{bad}");
        }
    }
}
