//! The one way AWS clients are built: region, credentials, endpoints, timeouts, retries and a narrow trust store.
