//! Small honest fakes for the ports of shared.
