//! Stories over network namespaces.
