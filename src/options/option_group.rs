//! `option_group!`: the one form that all groups of options have.
//!
//! Every group is a `#[non_exhaustive]` struct with public fields, `Default`, and one setter per
//! field that has the field's name. With the feature `serde` every group can be read from a
//! configuration file: unknown names are refused, missing ones have their defaults.
//!
//! ```text
//! option_group! {
//!     /// What the group is about.
//!     #[derive(Debug, Clone, PartialEq, Eq)]
//!     pub struct Example {
//!         /// Documentation of the field. Default: 3.
//!         pub attempts: u32 = 3,
//!         /// In a configuration file: a text such as "30s". Default: 30 s.
//!         pub pause: Duration as "humantime_serde" = Duration::from_secs(30),
//!         /// The setter takes a `Duration`. Default: none.
//!         pub limit: Option<Duration> as "humantime_serde::option" = None => [Duration],
//!         /// The setter takes any text.
//!         pub name: String = "example".to_owned() => [impl Into<String>],
//!         /// The setter takes any text too, and converts it before it wraps it.
//!         pub user: Option<String> = None => [Some(impl Into<String>)],
//!         /// No setter, but a constructor `Example::enabled()`.
//!         pub enabled: bool = false => [enabled()],
//!         /// The group's own `impl` block has the setter.
//!         pub servers: Vec<String> = Vec::new() => [custom],
//!     }
//! }
//! ```

macro_rules! option_group {
    (
        $(#[$group:meta])*
        pub struct $name:ident {
            $(
                $(#[$meta:meta])*
                pub $field:ident: $type:ty $(as $with:literal)? = $default:expr
                    $(=> [$($argument:tt)+])?
            ),* $(,)?
        }
    ) => {
        $(#[$group])*
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[$meta])*
                $(
                    #[cfg_attr(feature = "serde", serde(with = $with))]
                )?
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $name {
            $(
                $crate::options::option_group! {
                    @setter $field: $type $(=> [$($argument)+])?
                }
            )*
        }
    };

    (@setter $field:ident: $type:ty => [custom]) => {};

    (@setter $field:ident: $type:ty => [enabled()]) => {
        /// Returns the defaults, switched on.
        #[must_use]
        pub fn enabled() -> Self {
            Self { $field: true, ..Self::default() }
        }
    };

    (@setter $field:ident: $type:ty => [Some($argument:ty)]) => {
        $crate::options::option_group! {
            @method $field(value: $argument) => Some(value.into())
        }
    };

    (@setter $field:ident: $type:ty => [$argument:ty]) => {
        $crate::options::option_group! { @method $field(value: $argument) => value.into() }
    };

    (@setter $field:ident: $type:ty) => {
        $crate::options::option_group! { @method $field(value: $type) => value }
    };

    (@method $field:ident($value:ident: $argument:ty) => $converted:expr) => {
        #[doc = concat!(
            "Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ")."
        )]
        #[must_use]
        pub fn $field(mut self, $value: $argument) -> Self {
            self.$field = $converted;
            self
        }
    };
}

pub(crate) use option_group;
