//! `Error::loader_error` finds the error type of the user, whatever the loader wrapped it in.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use lazy_layers_cache::{BoxError, Error, ErrorKind, LazyLayersCache};

#[derive(Debug, PartialEq)]
struct Mine(u32);

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mine {}", self.0)
    }
}

impl StdError for Mine {}

/// An error with another one as its source, as `thiserror` makes them.
#[derive(Debug)]
struct Wrapper<E>(E);

impl<E> fmt::Display for Wrapper<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a wrapper")
    }
}

impl<E: StdError + 'static> StdError for Wrapper<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// The error of a call whose loader returns this one.
async fn failed<E: Into<BoxError> + Send + 'static>(error: E) -> Error {
    let cache = LazyLayersCache::<str, u32>::builder().build().unwrap();
    let error = cache.get_or_set("k", || async { Err::<u32, E>(error) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Loader);
    error
}

async fn assert_found<E: Into<BoxError> + Send + 'static>(error: E) {
    let error = failed(error).await;
    assert_eq!(error.loader_error::<Mine>(), Some(&Mine(7)), "{error:?}");
    assert!(error.loader_error::<io::Error>().is_none(), "{error:?}");
}

#[tokio::test]
async fn an_error_is_found_in_boxes_and_below_other_errors() {
    assert_found(Mine(7)).await;
    assert_found(Box::new(Mine(7))).await;
    assert_found(Arc::new(Mine(7))).await;
    assert_found(BoxError::from(Mine(7))).await;
    assert_found(Wrapper(Mine(7))).await;
    assert_found(Wrapper(Wrapper(Arc::new(Mine(7))))).await;
    assert_found(BoxError::from(Wrapper(Mine(7)))).await;
    assert_found(failed(Mine(7)).await).await;
}

#[tokio::test]
async fn an_error_is_found_in_an_error_of_anyhow() {
    let mine = || anyhow::Error::new(Mine(7));
    assert_found(mine()).await;
    assert_found(mine().context("a context")).await;
    assert_found(anyhow::Error::new(Wrapper(Mine(7)))).await;
    assert_found(anyhow::Error::from_boxed(Wrapper(Mine(7)).into())).await;
    assert_found(anyhow::Error::msg("a text").context(Mine(7))).await;
}

#[tokio::test]
async fn the_nearest_error_of_the_type_is_the_one_that_is_found() {
    let outer = failed(failed(Mine(7)).await).await;
    let inner = outer.loader_error::<Error>().unwrap();
    assert!(inner.loader_error::<Error>().is_none());
    assert_eq!(inner.loader_error::<Mine>(), Some(&Mine(7)));
}

#[tokio::test]
async fn an_error_of_anyhow_keeps_its_texts_and_its_sources() {
    let error = failed(anyhow::Error::new(Mine(7)).context("reading the price")).await;
    let chain: Vec<String> = anyhow::Chain::new(&error).map(ToString::to_string).collect();
    assert_eq!(chain, ["the loader of key `k` failed", "reading the price", "mine 7"]);
    assert!(format!("{error:?}").contains("Caused by:"), "{error:?}");
}
