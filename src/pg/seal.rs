//! The seal of a job's row: an HMAC-SHA256, computed by PostgreSQL's own functions with a secret of the cluster that no table holds. A
//! row that was not written by the extension's functions does not have it.
//!
//! The secret is the one that PostgreSQL makes up at initdb to answer for roles that do not exist (`mock_authentication_nonce` in
//! pg_control): 32 bytes that SQL can't read, the same on physical standbys and after a failover, but another one after initdb and
//! pg_upgrade.

use std::ffi::c_int;

use pgrx::pg_sys;

use crate::error::{Error, Result};

/// `pg_hmac_ctx`, which is opaque to callers.
#[repr(C)]
struct Context {
    _private: [u8; 0],
}

// Missing from pg_sys. The signatures are those of common/hmac.h, the same from PostgreSQL 15 to 18.
unsafe extern "C-unwind" {
    fn pg_hmac_create(kind: c_int) -> *mut Context;
    fn pg_hmac_init(context: *mut Context, key: *const u8, length: usize) -> c_int;
    fn pg_hmac_update(context: *mut Context, data: *const u8, length: usize) -> c_int;
    fn pg_hmac_final(context: *mut Context, into: *mut u8, length: usize) -> c_int;
    fn pg_hmac_free(context: *mut Context);
}

/// `PG_SHA256` of `pg_cryptohash_type`; the same from PostgreSQL 15 to 18.
const SHA256: c_int = 3;
/// Length of the cluster's secret in bytes: `MOCK_AUTH_NONCE_LEN`.
const SECRET: usize = 32;
/// Length of a seal in bytes.
const LENGTH: usize = 32;
/// Keeps the seals of jobs apart from whatever else is derived from the same secret.
const PURPOSE: &[u8] = b"backfill job 1\0";

/// Computes the seal for a digest.
pub fn of(digest: &[u8]) -> Result<[u8; LENGTH]> {
    let mut seal = [0; LENGTH];
    // SAFETY: the context is used between its creation and its release only; each length is that of the data that the pointer
    // leads to. The secret lies in shared memory for as long as the server runs.
    let made = unsafe {
        let secret = pg_sys::GetMockAuthenticationNonce();
        let context = pg_hmac_create(SHA256);
        if secret.is_null() || context.is_null() {
            return Err(Error::internal("HMAC-SHA256 is not available"));
        }
        let made = pg_hmac_init(context, secret.cast(), SECRET) >= 0
            && pg_hmac_update(context, PURPOSE.as_ptr(), PURPOSE.len()) >= 0
            && pg_hmac_update(context, digest.as_ptr(), digest.len()) >= 0
            && pg_hmac_final(context, seal.as_mut_ptr(), LENGTH) >= 0;
        pg_hmac_free(context);
        made
    };
    if made {
        Ok(seal)
    } else {
        Err(Error::internal("HMAC-SHA256 failed"))
    }
}

/// Whether `seal` is the seal for this digest. The comparison takes the same time however much of a wrong seal is right.
pub fn fits(digest: &[u8], seal: &[u8]) -> Result<bool> {
    let wanted = of(digest)?;
    let differing = wanted.iter().zip(seal).fold(0, |all, (a, b)| all | (a ^ b));
    Ok(seal.len() == LENGTH && differing == 0)
}

/// Returns the bytes as hexadecimal digits, as `decode` reads them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses hexadecimal digits into bytes.
pub fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16);
    (0..text.len())
        .step_by(2)
        .map(|at| digit(at).map_err(|_| Error::internal("not hexadecimal digits")))
        .collect()
}
