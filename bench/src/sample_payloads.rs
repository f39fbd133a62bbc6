//! Two sample payloads of a megabyte of JSON: products with long descriptions, and players with
//! much repetition.

use serde::{Deserialize, Serialize};

use crate::measure::Numbers;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Listing {
    Products { page: u32, total: u32, items: Vec<Product> },
    Players { pagination: Pagination, players: Vec<Player> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Product {
    id: String,
    sku: String,
    name: String,
    brand: String,
    price: Price,
    stock: u32,
    rating: f64,
    reviews: u32,
    categories: Vec<String>,
    images: Vec<Image>,
    description: String,
    attributes: Attributes,
    updated_at: u64,
    active: bool,
}

#[derive(Serialize, Deserialize)]
struct Price {
    amount: u32,
    currency: String,
    was: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct Image {
    url: String,
    width: u32,
    height: u32,
}

#[derive(Serialize, Deserialize)]
struct Attributes {
    color: String,
    size: String,
    weight: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pagination {
    page: u32,
    per_page: u32,
    total: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Player {
    id: String,
    device: Device,
    languages: Vec<String>,
    user_snapshot: User,
    info_cards: Vec<Card>,
    created_at: u64,
    last_seen: u64,
}

#[derive(Serialize, Deserialize)]
struct Device {
    os: String,
    version: String,
    model: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    name: String,
    level: u32,
    avatar_url: String,
    vip: bool,
    banned: bool,
    verified: bool,
}

#[derive(Serialize, Deserialize)]
struct Card {
    title: String,
    subtitle: String,
    wins: u32,
    losses: u32,
    tier: String,
    points: u32,
}

const WORDS: &str = "the quick light durable fabric keeps you warm and dry on every trip with a \
                     lifetime guarantee from our workshop in the north made for people who travel \
                     often";
const KINDS: [&str; 10] = [
    "Jacket",
    "Kettle",
    "Backpack",
    "Lamp",
    "Headphones",
    "Desk",
    "Knife",
    "Bottle",
    "Sneaker",
    "Tent",
];
const SORTS: [&str; 8] =
    ["Merino", "Recycled", "Compact", "Organic", "Foldable", "Stainless", "Wireless", "Handmade"];
const BRANDS: [&str; 6] = ["Nordvik", "Halden", "Kestrel", "Umbra", "Sable", "Orrin"];

pub(crate) fn products() -> Listing {
    let mut random = Numbers::new(12_345);
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let items = (0..1_700).map(|number| product(&mut random, &words, number)).collect();
    Listing::Products { page: 1, total: 1_700, items }
}

fn product(random: &mut Numbers, words: &[&str], number: u64) -> Product {
    let length = 12 + random.below(14);
    let description: Vec<&str> = (0..length).map(|_| words[random.below(words.len())]).collect();
    let image = |random: &mut Numbers, at| Image {
        url: format!(
            "https://cdn.example.com/img/{:x}{:x}_{at}.webp",
            random.below(1 << 30),
            random.below(1 << 30)
        ),
        width: 1_200,
        height: 800,
    };
    Product {
        id: format!("prd_{:x}{number}", random.below(1_000_000_000)),
        sku: format!("SKU-{}-{}", 1_000 + random.below(9_000), random.below(100)),
        name: format!("{} {}", of(random, &SORTS), of(random, &KINDS)),
        brand: of(random, &BRANDS),
        price: Price {
            amount: 500 + small(random, 50_000),
            currency: "EUR".to_owned(),
            was: (random.below(3) == 0).then(|| 60_000 + small(random, 9_999)),
        },
        stock: small(random, 500),
        rating: f64::from(small(random, 50)) / 10.0,
        reviews: small(random, 4_000),
        categories: (0..2).map(|_| of(random, &KINDS).to_lowercase()).collect(),
        images: (0..2).map(|at| image(random, at)).collect(),
        description: description.join(" "),
        attributes: Attributes {
            color: of(random, &["red", "black", "green", "navy"]),
            size: of(random, &["S", "M", "L", "XL"]),
            weight: small(random, 5_000),
        },
        updated_at: 1_700_000_000_000 + u64::from(small(random, 1_000_000_000)),
        active: random.below(10) > 0,
    }
}

pub(crate) fn players() -> Listing {
    let mut random = Numbers::new(7);
    let players = (0..1_650).map(|number| player(&mut random, number)).collect();
    let pagination = Pagination { page: 1, per_page: 1_650, total: 1_650 };
    Listing::Players { pagination, players }
}

fn player(random: &mut Numbers, number: u64) -> Player {
    let card = |title: &str, random: &mut Numbers| Card {
        title: title.to_owned(),
        subtitle: "Overview of the current period".to_owned(),
        wins: small(random, 500),
        losses: small(random, 500),
        tier: of(random, &["gold", "silver", "bronze"]),
        points: small(random, 5_000),
    };
    let languages = 1 + random.below(3);
    Player {
        id: format!("player-{number}"),
        device: Device {
            os: of(random, &["ios", "android"]),
            version: format!("17.{}", random.below(6)),
            model: of(random, &["iphone-15", "pixel-8", "galaxy-s24"]),
        },
        languages: ["en", "hi", "es"].iter().take(languages).map(|it| (*it).to_owned()).collect(),
        user_snapshot: User {
            name: format!("User {number}"),
            level: small(random, 100),
            avatar_url: format!("https://cdn.example.com/avatars/{number}.png"),
            vip: random.below(2) == 0,
            banned: false,
            verified: random.below(3) > 0,
        },
        info_cards: ["stats", "rank", "season", "clan"]
            .into_iter()
            .map(|title| card(title, random))
            .collect(),
        created_at: 1_700_000_000_000 + number * 1_000,
        last_seen: 1_700_000_000_000 + u64::from(small(random, 100_000_000)),
    }
}

fn of(random: &mut Numbers, choices: &[&str]) -> String {
    choices[random.below(choices.len())].to_owned()
}

fn small(random: &mut Numbers, bound: usize) -> u32 {
    u32::try_from(random.below(bound)).expect("a small bound")
}
