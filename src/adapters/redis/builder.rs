//! `redis_builder!`: the constructors and the builder that the store and the transport have alike.

/// Defines a builder with one setter per option, and the constructors of its target. `Debug`
/// prints no URL, since a URL may contain a password.
macro_rules! redis_builder {
    (
        $target:ident, $builder:ident { $($extra:ident: $type:ty = $default:expr)? },
        $options:ident { $($field:ident: $argument:ty),* $(,)? }
    ) => {
        impl $target {
            /// Uses a single server. Its URL is `redis://[user:password@]host[:port][/database]`,
            /// or `rediss://` for TLS with the feature `redis-tls`.
            pub fn at(url: impl Into<String>) -> $builder {
                $builder::new(Address::Server(url.into()))
            }

            /// Uses a Cluster. Takes the URLs of several of its nodes.
            pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> $builder {
                $builder::new(Address::Cluster(urls.into_iter().map(Into::into).collect()))
            }

            /// Uses the master that sentinels name. Takes the URLs of the sentinels, and the URL
            /// of the master with its name as the host: `redis://:password@mymaster/0`.
            pub fn sentinel(
                urls: impl IntoIterator<Item = impl Into<String>>,
                master: impl Into<String>,
            ) -> $builder {
                let urls = urls.into_iter().map(Into::into).collect();
                $builder::new(Address::Sentinel(urls, master.into()))
            }
        }

        #[doc = concat!("Builds a [`", stringify!($target), "`].")]
        #[must_use = "nothing happens before build()"]
        pub struct $builder {
            address: Address,
            pub(crate) tls: TlsMaterial,
            options: $options,
            $($extra: $type,)?
        }

        impl $builder {
            fn new(address: Address) -> Self {
                let (tls, options) = (TlsMaterial::default(), $options::default());
                Self { address, tls, options, $($extra: $default,)? }
            }

            /// Replaces all options, for example by those read from a config file.
            pub fn options(mut self, options: $options) -> Self {
                self.options = options;
                self
            }

            $(
                #[doc = concat!("Sets [`", stringify!($options), "::", stringify!($field), "`].")]
                pub fn $field(mut self, value: $argument) -> Self {
                    self.options.$field = value.into();
                    self
                }
            )*
        }

        impl std::fmt::Debug for $builder {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($builder))
                    .field("options", &self.options)
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use redis_builder;
