//! What can be set about TLS.

use super::RedisStoreBuilder;

impl RedisStoreBuilder {
    /// The authorities to trust instead of the machine's own, in PEM, for `rediss://`.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.trust(pem.into());
        self
    }

    /// The certificate to show and its key, in PEM, for `rediss://`.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.show(certificate.into(), key.into());
        self
    }
}
