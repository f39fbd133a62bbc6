//! The setters for certificates, which both builders have with the feature `redis-tls`.

use super::{store::builder::RedisStoreBuilder, transport::builder::RedisTransportBuilder};

macro_rules! certificate_setters {
    ($($builder:ty),*) => {$(
        impl $builder {
            /// Certificate authorities in PEM, for `rediss://`: the client trusts them instead of
            /// the system's.
            ///
            /// ```
            /// use lazy_layers_cache::RedisStore;
            ///
            /// # let pem = "";
            /// // Read from a file in a service.
            /// let store = RedisStore::at("rediss://127.0.0.1/").root_certificates(pem);
            /// ```
            pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
                self.tls.root = Some(pem.into());
                self
            }

            /// The client's certificate and its key in PEM, for `rediss://` servers that require
            /// one.
            ///
            /// ```
            /// use lazy_layers_cache::RedisTransport;
            ///
            /// # let (certificate, key) = ("", "");
            /// // Both read from files in a service.
            /// let bus = RedisTransport::at("rediss://127.0.0.1/");
            /// let bus = bus.client_certificate(certificate, key);
            /// ```
            pub fn client_certificate(
                mut self,
                certificate: impl Into<Vec<u8>>,
                key: impl Into<Vec<u8>>,
            ) -> Self {
                let (client_cert, client_key) = (certificate.into(), key.into());
                self.tls.client = Some(redis::ClientTlsConfig { client_cert, client_key });
                self
            }
        }
    )*};
}

certificate_setters!(RedisStoreBuilder, RedisTransportBuilder);
