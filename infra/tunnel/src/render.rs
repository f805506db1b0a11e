use crate::hosts::Gate;

/// The configuration for this gate. [`crate::check`] accepts it and nothing that says more.
///
/// Values are of closed grammars (lower-case names, hexadecimal digits), so that none needs quoting.
#[must_use]
pub fn render(gate: &Gate) -> String {
    let mut text = String::from(
        "# Rendered; edit infra/cloudflare/hosts.json instead. Everything else cloudflared is told stands in the image's environment.\n",
    );
    text.push_str(&format!("tunnel: {}\n\ningress:\n", gate.tunnel_id));
    text.push_str("  # `access` stands at each rule, because cloudflared ignores it anywhere else. The origin is named as the API names\n");
    text.push_str("  # itself, in the address, in TLS and in Host: API Gateway answers 403 to any other.\n");
    for (host, aud) in &gate.people {
        text.push_str(&format!(
            "  - hostname: {host}\n    service: https://{api}\n    originRequest:\n      httpHostHeader: {api}\n      \
             access:\n        required: true\n        teamName: {team}\n        audTag:\n          - {aud}\n",
            api = gate.api_host,
            team = gate.team,
        ));
    }
    text.push_str("  # The one exception: open routes, and workloads that prove themselves with signed assertions.\n");
    text.push_str(&format!(
        "  - hostname: {host}\n    service: https://{api}\n    originRequest:\n      httpHostHeader: {api}\n",
        host = gate.machines,
        api = gate.api_host,
    ));
    text.push_str("  - service: http_status:404\n");
    text
}
