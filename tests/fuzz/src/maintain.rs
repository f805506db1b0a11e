//! The maintaining deployment's acts, whose modules call each other by `super`.

of_functions! {
    "../../../functions/data-key/src/maintain/act.rs" act;
    "../../../functions/data-key/src/maintain/fields.rs" fields;
    "../../../functions/data-key/src/maintain/refusal.rs" refusal;
}
