//! The products of the shop: generates the rows of the database, the same in each run.

use rusqlite::{Connection, params};

pub(crate) const PRODUCTS: u64 = 50_000;
const CATEGORIES: u64 = 200;
const VENDORS: u64 = 1_000;
const REVIEWS_PER_PRODUCT: u64 = 5;

const SCHEMA: &str = "
    CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE vendor (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL);
    CREATE TABLE product (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL,
        category INTEGER NOT NULL REFERENCES category, vendor INTEGER NOT NULL REFERENCES vendor);
    CREATE TABLE review (
        id INTEGER PRIMARY KEY, product INTEGER NOT NULL REFERENCES product,
        stars INTEGER NOT NULL, words TEXT NOT NULL);
    CREATE INDEX review_of_product ON review (product);
    CREATE INDEX product_of_category ON product (category);
";

const WORDS: [&str; 12] = [
    "sturdy", "quiet", "bright", "light", "warm", "tiny", "clever", "plain", "handy", "round",
    "foldable", "blue",
];
const THINGS: [&str; 10] =
    ["lamp", "kettle", "chair", "clock", "radio", "knife", "bag", "desk", "mug", "coat"];
const COUNTRIES: [&str; 5] = ["Japan", "Portugal", "Kenya", "Chile", "Norway"];

/// Fills an empty database; calls `progress` with the number of products so far.
pub(crate) fn fill(
    connection: &mut Connection,
    progress: impl Fn(u64),
) -> Result<(), rusqlite::Error> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pick =
        |from: &[&'static str]| from.get(random.usize(..from.len())).copied().unwrap_or_default();
    connection.execute_batch(SCHEMA)?;
    let all = connection.transaction()?;
    {
        let mut category = all.prepare("INSERT INTO category VALUES (?, ?)")?;
        let mut vendor = all.prepare("INSERT INTO vendor VALUES (?, ?, ?)")?;
        let mut product = all.prepare("INSERT INTO product VALUES (?, ?, ?, ?, ?)")?;
        let mut review =
            all.prepare("INSERT INTO review (product, stars, words) VALUES (?, ?, ?)")?;
        for id in 0..CATEGORIES {
            category.execute(params![id, format!("{} things", pick(&WORDS))])?;
        }
        for id in 0..VENDORS {
            vendor.execute(params![id, format!("Vendor {id}"), pick(&COUNTRIES)])?;
        }
        for id in 0..PRODUCTS {
            let name = format!("{} {} {}", pick(&WORDS), pick(&WORDS), pick(&THINGS));
            let price = 500 + id * 7_919 % 20_000;
            product.execute(params![id, name, price, id % CATEGORIES, id * 31 % VENDORS])?;
            for number in 0..REVIEWS_PER_PRODUCT {
                let words = format!("A {} {}, and {}.", pick(&WORDS), pick(&THINGS), pick(&WORDS));
                review.execute(params![id, 1 + (id + number * 3) % 5, words])?;
            }
            if id % 5_000 == 0 {
                progress(id);
            }
        }
    }
    all.commit()
}
