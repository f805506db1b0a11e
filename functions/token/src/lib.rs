//! OAuth 2 token endpoint: verifies who asks, signs short access tokens.
