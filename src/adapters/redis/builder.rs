//! `builder_setters!`: the methods that the builders of the store and of the transport share.

/// Generates `options`, a setter per option, and a `Debug` that prints no URL, since a URL may
/// contain a password.
macro_rules! builder_setters {
    ($builder:ident for $options:ident { $($field:ident: $argument:ty),* $(,)? }) => {
        impl $builder {
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

pub(crate) use builder_setters;
