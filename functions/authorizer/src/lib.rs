//! Decides every request: token, revocation, route and scope, deny by default.
