//! The handlers of products and categories.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tracing::error;

use crate::{App, database::Product};

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/products/{id}", get(product).put(save_product))
        .route("/categories/{category}", get(category))
        .route("/categories/{category}/average", get(average))
}

async fn product(State(app): State<Arc<App>>, Path(id): Path<u64>) -> Result<Response, Failure> {
    let database = app.database.clone();
    // A loader that returns an `Option` may say that the key does not exist.
    let load = move || async move { database.product(id).await };
    match app.caches.products.get_or_set(&id, load).await? {
        Some(product) => Ok(Json(&*product).into_response()),
        None => Ok(StatusCode::NOT_FOUND.into_response()),
    }
}

async fn save_product(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Json(product): Json<Product>,
) -> Result<StatusCode, Failure> {
    let category = product.category.clone();
    let old = app.database.save(id, product).await?;
    let mut touched = vec![&*category];
    touched.extend(old.iter().map(|old| &*old.category).filter(|old| *old != category));
    app.caches.on_product_changed(id, &touched).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn category(
    State(app): State<Arc<App>>,
    Path(category): Path<String>,
) -> Result<Response, Failure> {
    let (database, name) = (app.database.clone(), category.clone());
    let load = move || async move { database.products_of(name).await };
    let products = app.caches.categories.get_or_set(&*category, load).await?;
    Ok(Json(&*products).into_response())
}

async fn average(
    State(app): State<Arc<App>>,
    Path(category): Path<String>,
) -> Result<Response, Failure> {
    let (database, name) = (app.database.clone(), category.clone());
    let load = move || async move { database.average_price(name).await };
    match app.caches.averages.get_or_set(&*category, load).await? {
        Some(price) => Ok(Json(*price).into_response()),
        None => Ok(StatusCode::NOT_FOUND.into_response()),
    }
}

/// The database failed or was too slow, and no cache had a value to serve instead.
struct Failure;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        error!(%error, "the request failed");
        Self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}
