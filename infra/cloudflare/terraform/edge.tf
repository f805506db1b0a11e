# One ruleset a phase is all a zone has: these own their phases. A zone that has rules already needs them moved in here, or
# a zone of its own for the gate.

locals {
  on_roots = join(" or ", [for root in concat(local.edge_paths.roots, local.edge_paths.optional) :
    endswith(root, "/")
    ? "starts_with(http.request.uri.path, ${jsonencode("/${var.stage}${root}")})"
    : "http.request.uri.path eq ${jsonencode("/${var.stage}${root}")} or starts_with(http.request.uri.path, ${jsonencode("/${var.stage}${root}/")})"
  ])
  method_set = join(" ", [for method in local.edge_paths.methods : jsonencode(method)])
}

# The issuer has no path and cloudflared rewrites none, so the stage is added here, to every path: `/v1/files` from outside
# becomes `/v1/v1/files` and is no route, and each route has one spelling. Cloudflare's own paths stay.
resource "cloudflare_ruleset" "rewrite" {
  zone_id = var.zone_id
  name    = "portcullis: stage"
  kind    = "zone"
  phase   = "http_request_transform"

  rules = [{
    ref         = "portcullis_stage"
    description = "Put the stage before the path"
    expression  = "${local.on_hosts} and not starts_with(http.request.uri.path, \"/cdn-cgi/\")"
    action      = "rewrite"
    action_parameters = {
      uri = { path = { expression = "concat(\"/${var.stage}\", http.request.uri.path)" } }
    }
  }]
}

# These run after the rewrite and see its path.
resource "cloudflare_ruleset" "firewall" {
  zone_id = var.zone_id
  name    = "portcullis: what never is a request"
  kind    = "zone"
  phase   = "http_request_firewall_custom"

  rules = [
    {
      # Refused and not redirected: a redirect would hide that a token went over the wire in clear.
      ref         = "portcullis_tls"
      description = "TLS only"
      expression  = "${local.on_hosts} and not ssl"
      action      = "block"
    },
    {
      ref         = "portcullis_methods"
      description = "Methods the API has"
      expression  = "${local.on_hosts} and not http.request.method in {${local.method_set}}"
      action      = "block"
    },
    {
      # API Gateway acts on the first two, an application would believe the third. All of them are ours to set. Names keep
      # the case they were sent in, and where there are too many the list is cut: that is refused as well.
      ref         = "portcullis_headers"
      description = "Headers that are ours to set"
      expression = join(" and ", [local.on_hosts, "(http.request.headers.truncated or ${join(" or ", [
        for name in ["x-http-method-override", "x-amzn-remapped-", "x-portcullis-"] :
        "any(lower(http.request.headers.names[*])[*] contains ${jsonencode(name)})"
      ])})"])
      action = "block"
    },
    {
      ref         = "portcullis_paths"
      description = "Paths the API has"
      expression  = "${local.on_hosts} and not starts_with(http.request.uri.path, \"/cdn-cgi/\") and not (${local.on_roots})"
      action      = "block"
    },
  ]
}

# An address that is over its limit waits, on the machines' host above all: there is no Access in front of it.
resource "cloudflare_ruleset" "limits" {
  zone_id = var.zone_id
  name    = "portcullis: limits"
  kind    = "zone"
  phase   = "http_ratelimit"

  rules = concat(
    [for limit in [var.rate_limits.token] : {
      ref         = "portcullis_limit_token"
      description = "Token endpoint"
      expression  = "${local.on_hosts} and starts_with(http.request.uri.path, \"/${var.stage}/oauth2/\")"
      action      = "block"
      ratelimit = {
        characteristics     = ["cf.colo.id", "ip.src"]
        period              = var.rate_limits.period
        requests_per_period = limit
        mitigation_timeout  = var.rate_limits.period
      }
    } if limit > 0],
    [{
      ref         = "portcullis_limit_hosts"
      description = "All hosts"
      expression  = local.on_hosts
      action      = "block"
      ratelimit = {
        characteristics     = ["cf.colo.id", "ip.src"]
        period              = var.rate_limits.period
        requests_per_period = var.rate_limits.hosts
        mitigation_timeout  = var.rate_limits.period
      }
    }],
  )
}

resource "cloudflare_ruleset" "managed" {
  count = var.managed_rules ? 1 : 0

  zone_id = var.zone_id
  name    = "portcullis: managed rules"
  kind    = "zone"
  phase   = "http_request_firewall_managed"

  rules = [{
    ref         = "portcullis_managed"
    description = "Cloudflare managed ruleset"
    expression  = local.on_hosts
    action      = "execute"
    # The id that Cloudflare publishes for its managed ruleset, the same in every zone.
    action_parameters = { id = "efb7b8c949ac4650a09736fc376e9aee" }
  }]
}

# Answers belong to one caller each.
resource "cloudflare_ruleset" "cache" {
  zone_id = var.zone_id
  name    = "portcullis: cache nothing"
  kind    = "zone"
  phase   = "http_request_cache_settings"

  rules = [{
    ref               = "portcullis_cache"
    description       = "Cache nothing"
    expression        = local.on_hosts
    action            = "set_cache_settings"
    action_parameters = { cache = false }
  }]
}
