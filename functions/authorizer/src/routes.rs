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
    /// The method, in capitals; `ANY` is every one.
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

/// The handshake of a WebSocket API in front of the application; there is no document that has it. What is said over the connection
/// afterwards is the application's to judge: nobody is asked again until the next handshake.
pub const CONNECT: Route =
    Route { method: "CONNECT", template: "/$connect", action: "app", scopes: &["app"], access: Access::ByToken };

impl Route {
    /// The route of this method and template.
    pub fn find(method: &str, template: &str) -> Option<&'static Route> {
        ROUTES.iter().find(|route| route.takes(method) && route.template == template)
    }

    /// The route of this method whose template the path fills. Where several do, the one with the fewest parameters, as the gateway
    /// itself chooses.
    pub fn of_path(method: &str, path: &str) -> Option<&'static Route> {
        let parameters = |route: &&Route| route.template.matches('{').count();
        ROUTES.iter().filter(|route| route.takes(method) && route.fill(path).is_some()).min_by_key(parameters)
    }

    /// Whether this is a route for the method. What is none in form is for no route, `ANY` neither.
    fn takes(&self, method: &str) -> bool {
        match self.method {
            "ANY" => method != "ANY" && !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()),
            own => own == method,
        }
    }

    /// Whether a token with these scopes may use the route at all.
    pub fn admits(&self, scopes: &Scopes) -> bool {
        self.scopes.iter().any(|scope| match scope.strip_prefix("fields:") {
            Some(operation) => scopes.allows_operation(operation),
            None => scopes.allows(scope),
        })
    }

    /// The path of the template with the parameters that `path` has in their place, if `path` is of this template and
    /// holds nothing that a policy reads as a wildcard or variable. A last parameter `{name+}` takes one segment or more,
    /// and a slash at the end.
    pub fn fill(&self, path: &str) -> Option<String> {
        let mut filled = String::new();
        let mut given = path.strip_prefix('/')?.split('/');
        for segment in self.template.strip_prefix('/')?.split('/') {
            let value = given.next()?;
            if segment.ends_with("+}") {
                let rest: Vec<&str> = given.collect();
                let (last, between) = rest.split_last().map_or((None, [].as_slice()), |(last, all)| (Some(*last), all));
                let ends = last.is_none_or(|last| last.is_empty() || is_plain(last));
                let plain = is_plain(value) && between.iter().all(|one| is_plain(one)) && ends;
                return plain.then(|| format!("{filled}/{}", [&[value], rest.as_slice()].concat().join("/")));
            }
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
    fn a_greedy_parameter_takes_what_is_left_if_all_of_it_is_plain() {
        let route =
            Route { method: "ANY", template: "/app/{proxy+}", action: "", scopes: &[], access: Access::ByToken };
        for path in ["/app/users", "/app/users/7/orders.json", "/app/users/", "/app/~a/b-c/d_e"] {
            assert_eq!(route.fill(path).as_deref(), Some(path));
        }
        for path in [
            "/app",
            "/app/",
            "/app//",
            "/app//a",
            "/app/a//b",
            "/app/a//",
            "/app/../files",
            "/app/a/..",
            "/app/%2e%2e/a",
            "/app/*",
            "/app/a/*",
            "/apps/a",
            "/app/a?b",
        ] {
            assert_eq!(route.fill(path), None, "{path}");
        }
        for (method, takes) in
            [("GET", true), ("PURGE", true), ("ANY", false), ("get", false), ("*", false), ("", false)]
        {
            assert_eq!(route.takes(method), takes, "{method}");
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
            ("PATCH", "/app/users/7", Some("/app/{proxy+}")),
            ("GET", "/app", None),
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
