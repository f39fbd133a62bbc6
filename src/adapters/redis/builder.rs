//! `redis_builder!`: the constructors and the builder that the store and the transport have alike.

/// Defines a builder with one setter per option, and the constructors of its target. `Debug`
/// prints no URL, since a URL may contain a password.
macro_rules! redis_builder {
    (
        $target:ident,
        $(#[$example:meta])*
        $builder:ident { $($extra:ident: $type:ty = $default:expr)? },
        $options:ident { $($field:ident: $argument:ty),* $(,)? }
    ) => {
        impl $target {
            /// Uses a single server. Its URL is `redis://[user:password@]host[:port][/database]`,
            /// or `rediss://` for TLS with the feature `redis-tls`.
            ///
            /// ```
            #[doc = concat!("use lazy_layers_cache::", stringify!($target), ";")]
            ///
            /// let url = "redis://:password@127.0.0.1/";
            #[doc = concat!("let built = ", stringify!($target), "::at(url).build()?;")]
            /// # Ok::<(), lazy_layers_cache::BuildError>(())
            /// ```
            pub fn at(url: impl Into<String>) -> $builder {
                $builder::new(Address::Server(url.into()))
            }

            /// Uses a Cluster. Takes the URLs of several of its nodes.
            ///
            /// ```
            #[doc = concat!("use lazy_layers_cache::", stringify!($target), ";")]
            ///
            /// let nodes = ["redis://redis-1/", "redis://redis-2/"];
            #[doc = concat!("let built = ", stringify!($target), "::cluster(nodes).build()?;")]
            /// # Ok::<(), lazy_layers_cache::BuildError>(())
            /// ```
            pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> $builder {
                $builder::new(Address::Cluster(urls.into_iter().map(Into::into).collect()))
            }

            /// Uses the master that sentinels name. Takes the URLs of the sentinels, and the URL
            /// of the master with its name as the host: `redis://:password@mymaster/0`.
            ///
            /// ```
            #[doc = concat!("use lazy_layers_cache::", stringify!($target), ";")]
            ///
            /// let sentinels = ["redis://sentinel-1:26379", "redis://sentinel-2:26379"];
            /// let master = "redis://:password@mymaster/0";
            #[doc = concat!("let built = ", stringify!($target), "::sentinel(sentinels, master)")]
            ///     .build()?;
            /// # Ok::<(), lazy_layers_cache::BuildError>(())
            /// ```
            pub fn sentinel(
                urls: impl IntoIterator<Item = impl Into<String>>,
                master: impl Into<String>,
            ) -> $builder {
                let urls = urls.into_iter().map(Into::into).collect();
                $builder::new(Address::Sentinel(urls, master.into()))
            }
        }

        #[doc = concat!("Builds a [`", stringify!($target), "`].")]
        $(#[$example])*
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
            ///
            /// ```
            #[doc = concat!("use lazy_layers_cache::", stringify!($options), ";")]
            #[doc = concat!("use lazy_layers_cache::", stringify!($target), ";")]
            ///
            #[doc = concat!("let options = ", stringify!($options), "::default();")]
            #[doc = concat!("let built = ", stringify!($target), "::at(\"redis://127.0.0.1/\")")]
            ///     .options(options)
            ///     .build()?;
            /// # Ok::<(), lazy_layers_cache::BuildError>(())
            /// ```
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
