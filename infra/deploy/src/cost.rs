//! What a deployment costs in a month, counted from the templates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use template::{Documents, Graph, Place, Profile, Resource};
use time::Date;
use time::macros::format_description;

use crate::world::World;

/// Days after which a price is old.
const OLD: i64 = 180;
/// The profiles of the table, in its order.
const PROFILES: [&str; 2] = ["recommended", "lean"];

/// Groups of the table, and the meters in each.
const GROUPS: &[(&str, &[&str])] = &[
    ("tunnel tasks (Fargate)", &["fargate-vcpu", "fargate-memory"]),
    ("interface endpoints", &["interface-endpoint"]),
    ("REST API and Lambda", &["rest-api", "lambda-request", "lambda-duration"]),
    ("keys (KMS)", &["kms-key", "kms-request"]),
    ("alarms, dashboard, metrics, logs", &["alarm", "dashboard", "metric", "log"]),
    ("database", &["database", "database-storage"]),
    ("database proxy", &["database-proxy"]),
];

/// Prices, and what a month is taken to see.
#[derive(Debug)]
pub struct Prices(Value);

impl Prices {
    /// Reads `infra/aws/prices.yaml`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(world: World<'_>) -> Result<Self, Vec<String>> {
        let path = world.path("infra/aws/prices.yaml");
        let text = fs::read_to_string(&path).map_err(|error| vec![format!("{}: {error}", path.display())])?;
        template::yaml(&text).map(Self)
    }

    fn number(&self, pointer: &str) -> Result<f64, Vec<String>> {
        self.0.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| vec![format!("prices.yaml: no number {pointer}")])
    }

    fn meter(&self, name: &str) -> Result<f64, Vec<String>> {
        self.number(&format!("/meters/{name}/price"))
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Days between `as_of` and a time.
    fn age(&self, now: u64) -> Result<i64, Vec<String>> {
        let as_of = Date::parse(self.text("as_of"), format_description!("[year]-[month]-[day]"))
            .map_err(|error| vec![format!("prices.yaml: as_of: {error}")])?;
        let today = time::OffsetDateTime::from_unix_timestamp(i64::try_from(now).unwrap_or(i64::MAX));
        Ok(today.map_or(0, |today| (today.date() - as_of).whole_days()))
    }

    /// The meters of a type; a type of which nothing is said is a fault.
    fn meters_of(&self, kind: &str) -> Result<Vec<String>, Vec<String>> {
        match self.0.get("types").and_then(|types| types.get(kind)) {
            Some(Value::Array(meters)) => Ok(meters.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            Some(Value::String(why)) if !why.is_empty() => Ok(Vec::new()),
            _ => Err(vec![format!("prices.yaml: nothing is said of {kind}")]),
        }
    }
}

/// Units of each meter, and their price.
#[derive(Debug, Default)]
struct Bill(BTreeMap<String, (f64, f64)>);

impl Bill {
    fn add(&mut self, meter: &str, units: f64, price: f64) {
        let line = self.0.entry(meter.to_owned()).or_default();
        *line = (line.0 + units, line.1 + units * price);
    }

    fn of(&self, meters: &[&str]) -> f64 {
        meters.iter().filter_map(|meter| self.0.get(*meter)).map(|(_, price)| price).sum()
    }
}

/// The page `docs/cost.md`, and warnings.
///
/// # Errors
/// A resource type without a price, or templates that cannot be read.
pub fn page(world: World<'_>) -> Result<(String, Vec<String>), Vec<String>> {
    let prices = Prices::read(world)?;
    let documents = Documents::read(&world.path("infra/aws"))?;
    let mut bills = Vec::new();
    let mut faults = BTreeSet::new();
    for profile in PROFILES {
        let parameters = crate::settings::load_profile(world, profile).map_err(|fault| vec![fault])?;
        let graph = documents.graph(&asked(parameters), &Place::new("111122223333", "us-east-1"))?;
        match bill(&graph, &prices) {
            Ok(bill) => bills.push(bill),
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(faults.into_iter().collect());
    }
    let mut warnings = Vec::new();
    let age = prices.age(world.clock.now())?;
    if age > OLD {
        warnings.push(format!("the prices of infra/aws/prices.yaml are {age} days old"));
    }
    Ok((table(&prices, &bills)?, warnings))
}

/// A whole deployment of a profile, with stand-ins for what only a person knows.
pub fn asked(parameters: BTreeMap<String, String>) -> Profile {
    let profile = Profile { parameters, optional: BTreeSet::new() };
    profile.with(&[
        ("Env", "prod"),
        ("Issuer", "https://api.example.com"),
        ("Audience", "https://api.example.com"),
        ("S3PrefixListId", "pl-0123456789abcdef0"),
        (
            "ImageUri",
            "111122223333.dkr-ecr.us-east-1.on.aws/portcullis-tunnel@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
    ])
}

fn bill(graph: &Graph, prices: &Prices) -> Result<Bill, Vec<String>> {
    let mut bill = Bill::default();
    let mut faults = Vec::new();
    for resource in &graph.resources {
        match prices.meters_of(&resource.kind) {
            Ok(meters) => {
                for meter in meters {
                    if let Err(found) = count(graph, resource, &meter, prices, &mut bill) {
                        faults.extend(found);
                    }
                }
            }
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() {
        let keys = prices.number("/usage/signing_keys")?;
        bill.add("kms-key", keys, prices.meter("kms-key")?);
        bill.add("kms-request", prices.number("/usage/kms_requests")?, prices.meter("kms-request")?);
        bill.add("log", prices.number("/usage/log_gigabytes")?, prices.meter("log")?);
        Ok(bill)
    } else {
        Err(faults)
    }
}

/// What one resource costs on one meter.
fn count(graph: &Graph, resource: &Resource, meter: &str, prices: &Prices, bill: &mut Bill) -> Result<(), Vec<String>> {
    let hours = prices.number("/hours")?;
    let number = |pointer: &str| resource.text(pointer).and_then(|text| text.parse::<f64>().ok());
    let unknown = |what: &str| vec![format!("{}: {what} is not known", resource.path())];
    let units = match meter {
        "interface-endpoint" => match resource.text("/VpcEndpointType").as_deref() {
            Some("Interface") => hours * resource.list("/SubnetIds").len() as f64,
            _ => return Ok(()),
        },
        "fargate-vcpu" | "fargate-memory" => {
            let task = resource.text("/TaskDefinition").and_then(|task| graph.find("AWS::ECS::TaskDefinition", &task));
            let pointer = if meter == "fargate-vcpu" { "/Cpu" } else { "/Memory" };
            let size =
                task.and_then(|task| task.text(pointer)?.parse::<f64>().ok()).ok_or_else(|| unknown("its task"))?;
            let tasks = number("/DesiredCount").ok_or_else(|| unknown("DesiredCount"))?;
            hours * tasks * size / 1024.0
        }
        "rest-api" => {
            let requests = prices.number("/usage/requests")?;
            let invocations = requests * prices.number("/usage/invocations_per_request")?;
            let seconds = invocations * prices.number("/usage/milliseconds")? / 1000.0;
            // Nearly all functions have a quarter of a gigabyte.
            bill.add("lambda-duration", seconds * 0.25, prices.meter("lambda-duration")?);
            bill.add("lambda-request", invocations, prices.meter("lambda-request")?);
            requests
        }
        "database" => {
            let class = resource.text("/DBInstanceClass").unwrap_or_default();
            let price = prices.0.get("databases").and_then(|all| all.get(&class)?.get("price")?.as_f64());
            let price = price.ok_or_else(|| vec![format!("prices.yaml: no price of {class}")])?;
            bill.add(meter, hours * copies(resource), price);
            return Ok(());
        }
        "database-storage" => {
            number("/AllocatedStorage").ok_or_else(|| unknown("AllocatedStorage"))? * copies(resource)
        }
        "database-proxy" => {
            let class = graph.of_kind("AWS::RDS::DBInstance").next().and_then(|one| one.text("/DBInstanceClass"));
            let class = class.ok_or_else(|| unknown("its instance"))?;
            let vcpu = prices.0.get("databases").and_then(|all| all.get(&class)?.get("vcpu")?.as_f64());
            hours * vcpu.ok_or_else(|| vec![format!("prices.yaml: no vcpu of {class}")])?
        }
        "dns-firewall" => resource.list("/Domains").len() as f64,
        _ => 1.0,
    };
    bill.add(meter, units, prices.meter(meter)?);
    Ok(())
}

/// A database in two zones is billed twice.
fn copies(resource: &Resource) -> f64 {
    if resource.text("/MultiAZ").as_deref() == Some("true") { 2.0 } else { 1.0 }
}

fn table(prices: &Prices, bills: &[Bill]) -> Result<String, Vec<String>> {
    let usage = |name: &str| prices.number(&format!("/usage/{name}"));
    let mut page = format!(
        "# What it costs\n\nWritten by `make cost` from the templates and `infra/aws/prices.yaml`; a test compares. {} a month, {}, list prices of {}\n\
         without free tiers, taxes and transfer, {} hours, {} requests of {} ms twice (authorizer and function), {} GB of logs.\n\
         The prices were not read from the pages again on that day: compare them before you rely on a sum.\n\n",
        prices.text("currency"),
        prices.text("region"),
        prices.text("as_of"),
        prices.number("/hours")?,
        usage("requests")?,
        usage("milliseconds")?,
        usage("log_gigabytes")?,
    );
    let row = |name: &str, sums: &[f64]| {
        let cells: Vec<String> =
            sums.iter().map(|sum| if *sum > 0.0 { format!("{sum:.2}") } else { "–".to_owned() }).collect();
        format!("| {name} | {} |\n", cells.join(" | "))
    };
    page.push_str(&format!("| | {} |\n|---|{}\n", PROFILES.join(" | "), "---:|".repeat(PROFILES.len())));
    let mut totals = vec![0.0; bills.len()];
    let grouped: BTreeSet<&str> = GROUPS.iter().flat_map(|(_, meters)| meters.iter().copied()).collect();
    for (name, meters) in GROUPS {
        let sums: Vec<f64> = bills.iter().map(|bill| bill.of(meters)).collect();
        totals.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
        page.push_str(&row(name, &sums));
    }
    if let Some(meter) = bills.iter().flat_map(|bill| bill.0.keys()).find(|meter| !grouped.contains(meter.as_str())) {
        return Err(vec![format!("no group of the table has the meter {meter}")]);
    }
    page.push_str(&row("**total**", &totals));
    page.push_str("\n| meter | price | unit | units ");
    page.push_str(&PROFILES.join(" | units "));
    page.push_str(" | page |\n|---|---:|---|");
    page.push_str(&"---:|".repeat(PROFILES.len()));
    page.push_str("---|\n");
    let meters: BTreeSet<&String> = bills.iter().flat_map(|bill| bill.0.keys()).collect();
    for meter in meters {
        let field = |name: &str| {
            prices.0.pointer(&format!("/meters/{meter}/{name}")).and_then(Value::as_str).unwrap_or("hour, by class")
        };
        let price = prices.meter(meter).map_or_else(|_| "by class".to_owned(), |price| price.to_string());
        let units: Vec<String> = bills
            .iter()
            .map(|bill| bill.0.get(meter).map_or("–".to_owned(), |(units, _)| format!("{units:.0}")))
            .collect();
        let source = if meter == "database" { "Amazon RDS for PostgreSQL pricing" } else { field("page") };
        page.push_str(&format!("| {meter} | {price} | {} | {} | {source} |\n", field("unit"), units.join(" | ")));
    }
    page.push_str(
        "\nLevers: without file functions no STS endpoint (`StsEndpoint=off`); `SsmEndpoint` is off unless `Signer=ssm`; `DbMode=direct` saves the\n\
         proxy; one zone instead of two halves the endpoints. The S3 gateway endpoint and the egress-only gateway cost nothing; a NAT\n\
         gateway, which this has not, would be 32.85 and its traffic.\n",
    );
    Ok(page)
}
