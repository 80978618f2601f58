//! SQL that is generated for users to read and to run without the extension. Nothing here needs a server.

pub mod standalone;
