//! The guarded routes, compiled from the OpenAPI document.

use shared::scope::Scopes;

/// When a request must carry a Cloudflare Access assertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// For humans' tokens only.
    ByToken,
    /// For everybody.
    Required,
}

/// One guarded operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path template.
    pub template: &'static str,
    /// The action that policy speaks of.
    pub action: &'static str,
    /// The token must hold one of these; `fields:{operation}` stands for any column scope of the operation.
    pub scopes: &'static [&'static str],
    /// Whether an Access assertion is demanded.
    pub access: Access,
}

/// All guarded operations of the deployed API.
pub const ROUTES: &[Route] = include!(concat!(env!("OUT_DIR"), "/routes.rs"));

impl Route {
    /// The route of this method and template.
    pub fn find(method: &str, template: &str) -> Option<&'static Route> {
        ROUTES.iter().find(|route| route.method == method && route.template == template)
    }

    /// The route of this method whose template the path fills. Where several do, the one with the fewest parameters, as the gateway
    /// itself chooses.
    pub fn of_path(method: &str, path: &str) -> Option<&'static Route> {
        let parameters = |route: &&Route| route.template.matches('{').count();
        ROUTES.iter().filter(|route| route.method == method && route.fill(path).is_some()).min_by_key(parameters)
    }

    /// Whether a token with these scopes may use the route at all.
    pub fn admits(&self, scopes: &Scopes) -> bool {
        self.scopes.iter().any(|scope| match scope.strip_prefix("fields:") {
            Some(operation) => scopes.allows_operation(operation),
            None => scopes.allows(scope),
        })
    }

    /// The path of the template with the parameters that `path` has in their place, if `path` is of this template and
    /// holds nothing that a policy reads as a wildcard or variable.
    pub fn fill(&self, path: &str) -> Option<String> {
        let mut filled = String::new();
        let mut given = path.strip_prefix('/')?.split('/');
        for segment in self.template.strip_prefix('/')?.split('/') {
            let value = given.next()?;
            let is_parameter = segment.starts_with('{');
            if is_parameter && !is_plain(value) || !is_parameter && value != segment {
                return None;
            }
            filled.push('/');
            filled.push_str(value);
        }
        match given.next() {
            None => Some(filled),
            Some(_) => None,
        }
    }
}

fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && !matches!(value, "." | "..")
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_would_read_as_a_pattern_fits_no_route() {
        let route =
            Route { method: "GET", template: "/files/{id}/content", action: "", scopes: &[], access: Access::ByToken };
        assert_eq!(route.fill("/files/0198-a/content").as_deref(), Some("/files/0198-a/content"));
        for path in [
            "/files/*/content",
            "/files/?/content",
            "/files/${aws:username}/content",
            "/files/%2e%2e/content",
            "/files/../content",
            "/files//content",
            "/files/a/content/",
            "/files/a/content/more",
            "/files/a",
            "//files/a/content",
            "files/a/content",
            "/Files/a/content",
            "/files/a\u{0}/content",
            "",
        ] {
            assert_eq!(route.fill(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_finds_the_route_whose_template_it_fills() {
        for (method, path, template) in [
            ("GET", "/files/0198-a", Some("/files/{id}")),
            ("GET", "/files/0198-a/content", Some("/files/{id}/content")),
            ("POST", "/files", Some("/files")),
            ("POST", "/fields/encrypt", Some("/fields/encrypt")),
            ("get", "/files/0198-a", None),
            ("GET", "/files/*", None),
            ("GET", "/files/a/b", None),
            ("GET", "/", None),
            ("GET", "", None),
            ("POST", "/oauth2/token", None),
        ] {
            assert_eq!(Route::of_path(method, path).map(|route| route.template), template, "{method} {path}");
        }
    }

    #[test]
    fn every_route_of_the_document_is_guarded_by_known_scopes() {
        assert!(!ROUTES.is_empty());
        for route in ROUTES {
            assert!(!route.action.is_empty() && !route.scopes.is_empty(), "{route:?}");
            for scope in route.scopes {
                let column = scope.strip_prefix("fields:").map(|operation| format!("fields:{operation}:*.*"));
                let scope = column.unwrap_or_else(|| (*scope).to_owned());
                assert!(Scopes::parse(&scope).is_ok(), "{route:?}");
            }
        }
    }
}
