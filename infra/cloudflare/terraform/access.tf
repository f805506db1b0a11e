# Everybody who comes to a host for people passes one of these policies. None of them bypasses, none includes everyone.

locals {
  people_include = concat(
    [for domain in var.email_domains : { email_domain = { domain = domain } }],
    [for it in var.groups : { azure_ad = { id = it.name, identity_provider_id = it.identity_provider_id } } if it.kind == "azure_ad"],
    [for it in var.groups : { okta = { name = it.name, identity_provider_id = it.identity_provider_id } } if it.kind == "okta"],
    [for it in var.groups : { gsuite = { email = it.name, identity_provider_id = it.identity_provider_id } } if it.kind == "gsuite"],
    [for it in var.groups : { saml = { attribute_name = it.claim, attribute_value = it.name, identity_provider_id = it.identity_provider_id } } if it.kind == "saml"],
    [for it in var.groups : { oidc = { claim_name = it.claim, claim_value = it.name, identity_provider_id = it.identity_provider_id } } if it.kind == "oidc"],
  )
}

resource "cloudflare_zero_trust_access_policy" "managed" {
  account_id       = var.account_id
  name             = "portcullis: people on managed devices"
  decision         = "allow"
  session_duration = var.session_duration
  include          = local.people_include
  require          = [for kind, group in cloudflare_zero_trust_access_group.posture : { group = { id = group.id } }]
}

resource "cloudflare_zero_trust_access_policy" "any" {
  account_id       = var.account_id
  name             = "portcullis: people on any device"
  decision         = "allow"
  session_duration = var.session_duration
  include          = local.people_include
}

resource "cloudflare_zero_trust_access_policy" "workloads" {
  count = min(length(var.service_token_ids), 1)

  account_id       = var.account_id
  name             = "portcullis: workloads with a service token"
  decision         = "non_identity"
  session_duration = var.session_duration
  include          = [for id in var.service_token_ids : { service_token = { token_id = id } }]
}

locals {
  people_policy = {
    managed = cloudflare_zero_trust_access_policy.managed.id
    any     = cloudflare_zero_trust_access_policy.any.id
  }
}

resource "cloudflare_zero_trust_access_application" "people" {
  for_each = var.people

  account_id                 = var.account_id
  name                       = "portcullis: ${each.key}"
  type                       = "self_hosted"
  domain                     = each.key
  session_duration           = var.session_duration
  allowed_idps               = var.identity_providers
  auto_redirect_to_identity  = length(var.identity_providers) == 1
  app_launcher_visible       = false
  http_only_cookie_attribute = true
  same_site_cookie_attribute = var.same_site_cookie
  # A program without a session gets a 401 and no page to log in at.
  service_auth_401_redirect = true

  policies = [for index, id in concat([local.people_policy[each.value.tier]], cloudflare_zero_trust_access_policy.workloads[*].id) : {
    id         = id
    precedence = index + 1
  }]

  # Access answers OPTIONS itself. Letting preflights through to the origin instead would be a way past Access. With no
  # origins allowed no page of another site may call.
  cors_headers = length(var.allowed_origins) == 0 ? null : {
    allowed_origins   = var.allowed_origins
    allowed_methods   = [for method in local.edge_paths.methods : method if method != "OPTIONS"]
    allowed_headers   = ["Authorization", "Content-Type", "DPoP", "Idempotency-Key"]
    allow_credentials = true
    max_age           = 600
  }
}
