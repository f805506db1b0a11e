//! STS behind the ports of shared.
