//! `matrix.txt` and `calls.txt`, read into rows, and the rows into cells: somebody, an action, a resource, a context.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::rc::Rc;

use local::policy;
use serde_json::Value;

use crate::judge;
use crate::policies::ACCOUNT;

/// What is known about a call, keys as they are written in policies.
pub type Context = BTreeMap<String, Vec<String>>;

/// A context, and what each judge reads it as: hundreds of mutants are judged by the same one.
#[derive(Clone, Debug, Default)]
pub struct Known {
    context: Context,
    own: OnceCell<policy::Context>,
    second: OnceCell<iam_rs::Context>,
}

impl Known {
    /// For the evaluator of the local stack.
    pub fn own(&self) -> &policy::Context {
        self.own.get_or_init(|| judge::known(&self.context))
    }

    /// For the crate `iam-rs`.
    pub fn second(&self) -> &iam_rs::Context {
        self.second.get_or_init(|| judge::known_second(&self.context))
    }
}

impl From<Context> for Known {
    fn from(context: Context) -> Self {
        Self { context, ..Self::default() }
    }
}

impl Deref for Known {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

/// One thing that somebody may or may not do.
#[derive(Clone, Debug)]
pub struct Cell {
    pub who: Rc<str>,
    pub action: Rc<str>,
    pub resource: Rc<str>,
    pub context: Rc<Known>,
}

impl Cell {
    /// The part of the action before its colon.
    pub fn service(&self) -> &str {
        self.action.split(':').next().unwrap_or_default()
    }
}

/// A resource that is tried.
#[derive(Clone, Debug)]
pub struct Resource {
    pub arn: String,
    pub service: String,
    /// What its service says about it whoever asks: tags, kind of key.
    pub attributes: Context,
}

/// What a row is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Possible, and seen.
    May,
    /// Possible, and done by AWS or by nobody here.
    Aws,
    /// Impossible.
    Not,
}

/// One condition of a row on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub key: String,
    pub rule: Rule,
    /// `A|B*`: A, or whatever begins with B.
    value: String,
    /// The value that a row's own cell has.
    pub example: String,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Equal,
    EqualIfThere,
    Present,
    Whatever,
    AtMost,
    Among,
    Absent,
    NoneOf,
}

/// A row of the matrix.
#[derive(Clone, Debug)]
pub struct Row {
    pub kind: Kind,
    /// Parameters of the deployments that it is about; none means all.
    pub only: Vec<String>,
    pub who: Vec<String>,
    pub actions: Vec<String>,
    /// Ids, `*` at the end.
    pub resources: Vec<String>,
    pub conditions: Vec<Condition>,
    pub comment: String,
    pub line: usize,
}

/// A mutant that is known to mean the same.
#[derive(Clone, Debug)]
pub struct Same {
    pub role: String,
    pub sid: String,
    pub mutation: String,
    pub reason: String,
}

/// Something by its number, and the names that go with it.
type Numbered = (usize, Vec<String>);

/// The matrix.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    pub rows: Vec<Row>,
    pub same: Vec<Same>,
    pub actions: BTreeMap<String, Vec<String>>,
    /// Those that know no resource.
    pub nowhere: BTreeSet<String>,
    pub resources: BTreeMap<String, Resource>,
    lists: BTreeMap<String, Vec<String>>,
    names: Names,
    /// Somebody → action → the rows about both, by number, with the ids of their resources.
    about: BTreeMap<String, BTreeMap<String, Vec<Numbered>>>,
}

/// What `{…}` stands for.
pub type Names = BTreeMap<String, String>;

impl Matrix {
    /// Reads the file; a line that is not understood is a fault.
    pub fn read(text: &str, names: &Names) -> Matrix {
        let mut matrix = Matrix { names: names.clone(), ..Matrix::default() };
        let (mut groups, mut parts) = (BTreeMap::new(), BTreeMap::new());
        let mut service = String::new();
        for (number, line) in text.lines().enumerate() {
            let (line, comment) = line.split_once(" # ").map_or((line, ""), |(line, comment)| (line, comment.trim()));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let line = fill(line, names);
            let words: Vec<&str> = line.split_whitespace().collect();
            let texts = |from: usize| words[from..].iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let (verb, only) = match words[0].split_once('[') {
                Some((verb, only)) => (verb, only.trim_end_matches(']').split(',').map(str::to_owned).collect()),
                None => (words[0], Vec::new()),
            };
            match verb {
                "list" => drop(matrix.lists.insert(words[1].to_owned(), texts(2))),
                "group" => drop(groups.insert(words[1].to_owned(), texts(2))),
                "service" => service = words[1].to_owned(),
                "actions" => {
                    let known = matrix.actions.entry(service.clone()).or_default();
                    known.extend(words[1..].iter().map(|name| format!("{service}:{name}")));
                }
                "nowhere" => matrix.nowhere.extend(words[1..].iter().map(|name| format!("{service}:{name}"))),
                "resource" => {
                    for names in matrix.each(&line) {
                        let filled = fill(&line, &names);
                        let words: Vec<&str> = filled.split_whitespace().collect();
                        let mut attributes = Context::new();
                        for word in &words[3..] {
                            let (key, value) = word.split_once('=').expect(word);
                            attributes.insert(key.to_owned(), vec![value.to_owned()]);
                        }
                        let resource = Resource { arn: words[2].to_owned(), service: service.clone(), attributes };
                        assert!(matrix.resources.insert(words[1].to_owned(), resource).is_none(), "{line}: twice");
                    }
                }
                "with" => {
                    let words_of = |word: String| parts.get(&word).cloned().unwrap_or_else(|| vec![word]);
                    let all = texts(2).into_iter().flat_map(words_of).collect::<Vec<String>>();
                    parts.insert(words[1].to_owned(), all);
                }
                "same" => {
                    assert!(!comment.is_empty(), "line {}: why?", number + 1);
                    matrix.same.push(Same {
                        role: words[1].to_owned(),
                        sid: words[2].to_owned(),
                        mutation: words[3..].join(" "),
                        reason: comment.to_owned(),
                    });
                }
                "may" | "aws" | "not" => {
                    let kind = match verb {
                        "may" => Kind::May,
                        "aws" => Kind::Aws,
                        _ => Kind::Not,
                    };
                    assert!(kind == Kind::May || !comment.is_empty(), "line {}: why?", number + 1);
                    let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
                    let who = split(words[1]).into_iter();
                    let who = who.flat_map(|name| groups.get(&name).cloned().unwrap_or_else(|| vec![name])).collect();
                    let mut conditions = Vec::new();
                    for word in texts(4) {
                        for word in parts.get(&word).cloned().unwrap_or_else(|| vec![word]) {
                            conditions.push(Condition::read(&word));
                        }
                    }
                    let (actions, resources) = (split(words[2]), split(words[3]));
                    let line = number + 1;
                    let comment = comment.to_owned();
                    matrix.rows.push(Row { kind, only, who, actions, resources, conditions, comment, line });
                }
                other => panic!("line {}: unknown `{other}`", number + 1),
            }
        }
        matrix.check();
        for (number, row) in matrix.rows.iter().enumerate() {
            for (who, action) in row.who.iter().flat_map(|who| row.actions.iter().map(move |action| (who, action))) {
                let rows = matrix.about.entry(who.clone()).or_default().entry(action.clone()).or_default();
                rows.push((number, row.resources_of(who)));
            }
        }
        matrix
    }

    /// Every name in a row is one that is tried.
    fn check(&self) {
        for row in &self.rows {
            for action in &row.actions {
                let service = action.split(':').next().unwrap_or_default();
                let known = self.actions.get(service).is_some_and(|known| known.contains(action));
                assert!(known, "line {}: {action} is no action of its service", row.line);
            }
            for who in &row.who {
                for resource in row.resources_of(who) {
                    let found = self.resources.keys().any(|id| covers(&resource, id));
                    assert!(found, "line {}: no resource {resource}", row.line);
                }
            }
        }
    }

    /// The values of the lists that `line` names.
    fn each(&self, line: &str) -> Vec<Names> {
        let mut all = vec![Names::new()];
        for (name, values) in self.lists.iter().filter(|(name, _)| line.contains(&format!("{{{name}}}"))) {
            let with = |names: Names| {
                values.iter().map(move |value| {
                    let mut names = names.clone();
                    names.insert(name.clone(), value.clone());
                    names
                })
            };
            all = all.into_iter().flat_map(with).collect();
        }
        all
    }

    /// The rows that hold for a deployment.
    pub fn rows_for<'a>(&'a self, deployment: &'a [&str]) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(|row| row.holds_in(deployment))
    }

    /// Everybody that a row names.
    pub fn everybody(&self) -> BTreeSet<String> {
        self.rows.iter().flat_map(|row| row.who.iter().cloned()).collect()
    }

    /// Whether the rows say that this is possible.
    pub fn says(&self, deployment: &[&str], cell: &Cell) -> bool {
        let rows = self.about.get(&*cell.who).and_then(|actions| actions.get(&*cell.action));
        rows.into_iter().flatten().any(|(number, resources)| {
            let row = &self.rows[*number];
            row.kind != Kind::Not
                && row.holds_in(deployment)
                && resources.iter().any(|resource| covers(resource, &cell.resource))
                && row.lets(&cell.context)
        })
    }

    /// Every cell of somebody: each action on each resource of its service in each context of this file, and around each
    /// row's own cell the contexts in which one thing is different.
    pub fn cells(&self, deployment: &[&str], who: &str) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (service, actions) in &self.actions {
            let mut contexts = BTreeSet::from([Context::new()]);
            for row in self.rows_for(deployment).filter(|row| row.actions[0].starts_with(&format!("{service}:"))) {
                contexts.insert(row.context());
            }
            let contexts: Vec<Context> = contexts.into_iter().collect();
            let all_nowhere = !actions.iter().any(|action| self.nowhere.contains(action));
            for (id, resource) in self.resources.iter().filter(|(_, resource)| resource.service == *service) {
                let suits = |action: &&String| all_nowhere || self.nowhere.contains(*action) == (resource.arn == "*");
                let actions: Vec<String> = actions.iter().filter(suits).cloned().collect();
                cells.extend(self.product(who, &actions, id, &contexts));
            }
        }
        cells.extend(self.around(deployment, who));
        cells
    }

    /// The cells of the rows that name somebody, and those that differ from them in one thing.
    pub fn around(&self, deployment: &[&str], who: &str) -> Vec<Cell> {
        let rows = self.rows_for(deployment).filter(|row| row.who.iter().any(|name| name == who));
        rows.flat_map(|row| self.cells_of(row, who, &row.variations())).collect()
    }

    /// A row's own cells for somebody.
    pub fn own(&self, row: &Row, who: &str) -> Vec<Cell> {
        self.cells_of(row, who, &[row.context()])
    }

    fn cells_of(&self, row: &Row, who: &str, contexts: &[Context]) -> Vec<Cell> {
        let mut cells = Vec::new();
        for wanted in row.resources_of(who) {
            for id in self.resources.keys().filter(|id| covers(&wanted, id)) {
                cells.extend(self.product(who, &row.actions, id, contexts));
            }
        }
        cells
    }

    fn product(&self, who: &str, actions: &[String], id: &str, contexts: &[Context]) -> Vec<Cell> {
        let known: Vec<Rc<Known>> =
            contexts.iter().map(|context| Rc::new(self.known(who, id, context).into())).collect();
        let (who, resource): (Rc<str>, Rc<str>) = (who.into(), id.into());
        let mut cells = Vec::new();
        for action in actions {
            let action: Rc<str> = action.as_str().into();
            cells.extend(known.iter().map(|context| Cell {
                who: Rc::clone(&who),
                action: Rc::clone(&action),
                resource: Rc::clone(&resource),
                context: Rc::clone(context),
            }));
        }
        cells
    }

    /// What AWS knows about a call besides: the resource's attributes and, unless the context says otherwise, that a
    /// function's own code is calling through our endpoint. A service that calls in a function's name comes from its own
    /// network.
    pub fn known(&self, who: &str, id: &str, context: &Context) -> Context {
        let resource = self.resources.get(id).unwrap_or_else(|| panic!("{id}: no such resource is tried"));
        let mut known = context.clone();
        known.extend(resource.attributes.clone());
        if let Some(arn) = principal(who) {
            let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
            known.insert("aws:PrincipalAccount".to_owned(), vec![account]);
            known.insert("aws:PrincipalArn".to_owned(), vec![arn]);
        }
        if self.lists["role"].iter().any(|role| role == who) && !known.contains_key("kms:ViaService") {
            let function = format!("arn:aws:lambda:{{region}}:{{account}}:function:portcullis-local-{who}");
            known.entry("lambda:SourceFunctionArn".to_owned()).or_insert_with(|| vec![fill(&function, &self.names)]);
            if let Some(endpoint) = self.names.get(&format!("{}-endpoint", resource.service)) {
                known.entry("aws:SourceVpce".to_owned()).or_insert_with(|| vec![endpoint.clone()]);
            }
        }
        known.retain(|_, values| !values.is_empty());
        known
    }
}

impl Row {
    /// The ids of the resources, with the names of whoever it is about.
    pub fn resources_of(&self, who: &str) -> Vec<String> {
        let role = who.split(':').next().unwrap_or_default();
        let names = Names::from([("role".to_owned(), role.to_owned()), ("user".to_owned(), role.replace('-', "_"))]);
        self.resources.iter().map(|resource| fill(resource, &names)).collect()
    }

    /// Whether this row speaks of the cell.
    pub fn is_about(&self, cell: &Cell) -> bool {
        self.who.iter().any(|who| **who == *cell.who)
            && self.actions.iter().any(|action| **action == *cell.action)
            && self.resources_of(&cell.who).iter().any(|resource| covers(resource, &cell.resource))
            && self.lets(&cell.context)
    }

    fn holds_in(&self, deployment: &[&str]) -> bool {
        self.only.iter().all(|one| deployment.contains(&one.as_str()))
    }

    fn lets(&self, context: &Context) -> bool {
        self.conditions.iter().all(|condition| condition.holds(context))
    }

    /// The context of the row's own cell.
    pub fn context(&self) -> Context {
        let mut context = Context::new();
        for condition in self.conditions.iter().filter(|condition| condition.rule != Rule::Among) {
            let values = match condition.rule {
                Rule::Absent => Vec::new(),
                Rule::NoneOf => continue,
                _ => vec![condition.example.clone()],
            };
            context.insert(condition.key.clone(), values);
        }
        for condition in self.conditions.iter().filter(|condition| condition.rule == Rule::Among) {
            let members = condition.example.split(',').map(str::to_owned);
            context.insert(condition.key.clone(), members.collect());
        }
        encryption_context_keys(&mut context);
        context
    }

    /// The row's own context, and those that differ from it in one thing.
    fn variations(&self) -> Vec<Context> {
        let own = self.context();
        let mut all = vec![own.clone()];
        let mut put = |change: &dyn Fn(&mut Context)| {
            let mut context = own.clone();
            change(&mut context);
            encryption_context_keys(&mut context);
            all.push(context);
        };
        for Condition { key, rule, example, value } in &self.conditions {
            put(&|context| drop(context.insert(key.clone(), Vec::new())));
            let with =
                |value: String| move |context: &mut Context| drop(context.insert(key.clone(), vec![value.clone()]));
            match rule {
                Rule::AtMost => {
                    let most: u64 = example.parse().expect(example);
                    [0, most + 1, most * 10].into_iter().for_each(|number| put(&with(number.to_string())));
                }
                Rule::Among => {
                    let family = family(key);
                    put(&|context| match family {
                        Some(family) => drop(context.insert(format!("{family}more"), vec!["1".to_owned()])),
                        None => context.entry(key.clone()).or_default().push("more".to_owned()),
                    });
                    // The name of a member counts to the letter, though a condition's key does not.
                    if let Some(family) = family {
                        for member in example.split(',') {
                            let (key, shouted) =
                                (format!("{family}{member}"), format!("{family}{}", member.to_uppercase()));
                            put(&|context| {
                                if let Some(value) = context.remove(&key) {
                                    context.insert(shouted.clone(), value);
                                }
                            });
                        }
                    }
                }
                Rule::NoneOf => value.split('|').for_each(|one| put(&with(one.to_owned()))),
                _ if example == "true" => put(&with("false".to_owned())),
                _ if example == "false" => put(&with("true".to_owned())),
                _ => {
                    let others = value.split('|').map(|one| one.replace('*', "globex/2"));
                    others.chain(["other".to_owned(), format!("{example}x")]).for_each(|value| put(&with(value)));
                }
            }
        }
        all
    }
}

impl Condition {
    fn read(word: &str) -> Condition {
        if let Some(key) = word.strip_suffix('-').filter(|key| !key.contains(['=', '<', '?', '+', '~', '!'])) {
            let (value, example) = (String::new(), "other".to_owned());
            return Condition { key: key.to_owned(), rule: Rule::Absent, value, example };
        }
        let at = |mark: &str| word.find(mark).map(|at| (at, mark.len()));
        let marks = [
            ("<=", Rule::AtMost),
            ("<", Rule::Among),
            ("=", Rule::Equal),
            ("?", Rule::EqualIfThere),
            ("+", Rule::Present),
            ("~", Rule::Whatever),
            ("!", Rule::NoneOf),
        ];
        let first = marks.iter().filter_map(|(mark, rule)| at(mark).map(|(at, length)| (at, length, *rule)));
        let (at, length, rule) = first.min_by_key(|(at, ..)| *at).unwrap_or_else(|| panic!("`{word}` is no condition"));
        let value = &word[at + length..];
        let last = value.rsplit('|').next().unwrap_or_default();
        let example = last.replace('*', "acme/1");
        Condition { key: word[..at].to_owned(), rule, value: value.to_owned(), example }
    }

    fn holds(&self, context: &Context) -> bool {
        let found = context.iter().filter(|(key, _)| key.eq_ignore_ascii_case(&self.key));
        let values: Vec<&String> = found.flat_map(|(_, values)| values).collect();
        let given = !values.is_empty();
        match self.rule {
            Rule::Equal => given && values.iter().all(|value| self.value.split('|').any(|one| covers(one, value))),
            Rule::EqualIfThere => !given || values.contains(&&self.example),
            Rule::Present => given,
            Rule::Absent => !given,
            Rule::NoneOf => !values.iter().any(|value| self.value.split('|').any(|one| one == *value)),
            Rule::Whatever => true,
            Rule::AtMost => {
                let most: u64 = self.example.parse().expect(&self.example);
                values.iter().any(|value| value.parse::<u64>().is_ok_and(|number| number <= most))
            }
            Rule::Among => given && values.iter().all(|value| self.example.split(',').any(|one| one == *value)),
        }
    }
}

/// The ARN of somebody; a service of AWS has none.
pub fn principal(who: &str) -> Option<String> {
    match who {
        "stranger" => Some(format!("arn:aws:iam::{ACCOUNT}:role/stranger")),
        "foreigner" => Some("arn:aws:iam::444455556666:role/foreigner".to_owned()),
        service if service.contains('.') => None,
        _ => {
            let role = who.split(':').next().unwrap_or_default();
            Some(format!("arn:aws:iam::{ACCOUNT}:role/portcullis-local-{role}"))
        }
    }
}

/// For the list of an encryption context's names, the keys that hold its values.
fn family(key: &str) -> Option<&'static str> {
    (key == "kms:EncryptionContextKeys").then_some("kms:EncryptionContext:")
}

/// KMS lists the names of the context it was given; nobody can send another list.
fn encryption_context_keys(context: &mut Context) {
    let prefix = "kms:EncryptionContext:";
    let given = context.iter().filter(|(_, values)| !values.is_empty());
    let names: Vec<String> = given.filter_map(|(key, _)| key.strip_prefix(prefix)).map(str::to_owned).collect();
    context.remove("kms:EncryptionContextKeys");
    if !names.is_empty() {
        context.insert("kms:EncryptionContextKeys".to_owned(), names);
    }
}

fn covers(wanted: &str, id: &str) -> bool {
    wanted == id || wanted.strip_suffix('*').is_some_and(|start| id.starts_with(start))
}

/// `text` with `{name}` replaced; names that are not known stay.
pub fn fill(text: &str, names: &Names) -> String {
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// A line of `calls.txt`.
#[derive(Clone, Debug)]
pub struct Call {
    pub cell: Cell,
    pub allowed: bool,
    /// The parameters of the deployment in which it was made.
    pub deployment: Vec<String>,
}

/// `calls.txt`: the calls, and the policies by which functions narrowed the sessions of their signers.
pub fn calls(text: &str, names: &Names) -> (Vec<Call>, BTreeMap<String, Value>) {
    let (mut calls, mut sessions, mut deployment) = (Vec::new(), BTreeMap::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let line = fill(line, names);
        if let Some(rest) = line.strip_prefix("session ") {
            let (who, policy) = rest.split_once(' ').expect(rest);
            sessions.insert(who.to_owned(), serde_json::from_str(policy).expect(policy));
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "run" {
            deployment = words[1..].iter().map(|word| (*word).to_owned()).collect();
            continue;
        }
        let mut context = Context::new();
        for word in &words[4..] {
            let (key, values) = word.split_once('=').expect(word);
            context.insert(key.to_owned(), values.split(',').map(str::to_owned).collect());
        }
        let (who, action, resource) = (words[1].into(), words[2].into(), words[3].into());
        let cell = Cell { who, action, resource, context: Rc::new(context.into()) };
        calls.push(Call { cell, allowed: words[0] == "allow", deployment: deployment.clone() });
    }
    (calls, sessions)
}
