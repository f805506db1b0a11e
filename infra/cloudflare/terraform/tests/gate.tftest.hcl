# `terraform test`: plans against a mock of the provider, so neither an account nor a token is needed.

mock_provider "cloudflare" {}

variables {
  team      = "example"
  zone      = "example.com"
  tunnel_id = "6ff42ae2-765d-4adf-8112-31c55c1551ef"
  stage     = "v1"
  machines  = "machines.example.com"
  people = {
    "api.example.com"   = { tier = "managed" }
    "guest.example.com" = { tier = "any" }
  }
  account_id         = "0123456789abcdef0123456789abcdef"
  zone_id            = "fedcba9876543210fedcba9876543210"
  identity_providers = ["11111111-2222-4333-8444-555555555555"]
  email_domains      = ["example.com"]
  platforms          = ["windows", "mac"]
  posture            = { os_version = { windows = "10.0.22631", mac = "14.6.0" } }
}

run "every_host_points_at_the_tunnel_through_cloudflare" {
  assert {
    condition     = toset(keys(cloudflare_dns_record.host)) == toset(["api.example.com", "guest.example.com", "machines.example.com"])
    error_message = "hosts"
  }
  assert {
    condition = alltrue([for record in cloudflare_dns_record.host :
    record.proxied && record.type == "CNAME" && record.content == "6ff42ae2-765d-4adf-8112-31c55c1551ef.cfargotunnel.com"])
    error_message = "records"
  }
}

run "every_host_for_people_has_an_application_and_the_machines_have_none" {
  assert {
    condition     = toset([for host, application in cloudflare_zero_trust_access_application.people : application.domain]) == toset(["api.example.com", "guest.example.com"])
    error_message = "applications"
  }
  assert {
    condition     = output.access.people["api.example.com"].aud == cloudflare_zero_trust_access_application.people["api.example.com"].aud
    error_message = "audience"
  }
  assert {
    condition     = output.access.people["api.example.com"].tier == "managed" && output.access.people["guest.example.com"].tier == "any"
    error_message = "tiers"
  }
  assert {
    condition     = alltrue([for application in cloudflare_zero_trust_access_application.people : application.options_preflight_bypass == null && application.cors_headers == null])
    error_message = "without origins nobody may call from another page"
  }
  assert {
    condition     = length(cloudflare_zero_trust_access_application.people["api.example.com"].policies) == 1
    error_message = "policies"
  }
}

run "a_managed_device_passes_every_kind_of_check_on_its_platform" {
  assert {
    condition     = length(cloudflare_zero_trust_access_policy.managed.require) == 3 && length(cloudflare_zero_trust_device_posture_rule.check) == 6
    error_message = "three kinds, two platforms"
  }
  assert {
    condition     = alltrue([for group in cloudflare_zero_trust_access_group.posture : length(group.include) == 2])
    error_message = "one rule a platform in each kind"
  }
  assert {
    condition     = cloudflare_zero_trust_device_posture_rule.check["os_version-mac"].input.version == "14.6.0" && cloudflare_zero_trust_device_posture_rule.check["os_version-mac"].input.operator == ">="
    error_message = "version"
  }
  assert {
    condition     = cloudflare_zero_trust_access_policy.managed.include[0].email_domain.domain == "example.com"
    error_message = "who"
  }
}

run "the_stage_is_put_before_every_path" {
  assert {
    condition     = cloudflare_ruleset.rewrite.rules[0].action_parameters.uri.path.expression == "concat(\"/v1\", http.request.uri.path)"
    error_message = "rewrite"
  }
  assert {
    condition     = cloudflare_ruleset.rewrite.rules[0].expression == "http.host in {\"api.example.com\" \"guest.example.com\" \"machines.example.com\"} and not starts_with(http.request.uri.path, \"/cdn-cgi/\")"
    error_message = "where"
  }
}

run "every_rule_of_the_edge_holds_on_every_host" {
  assert {
    condition = alltrue([for rule in concat(
      cloudflare_ruleset.rewrite.rules, cloudflare_ruleset.firewall.rules, cloudflare_ruleset.limits.rules, cloudflare_ruleset.cache.rules) :
    startswith(rule.expression, "http.host in {\"api.example.com\" \"guest.example.com\" \"machines.example.com\"}")])
    error_message = "hosts"
  }
  assert {
    condition     = alltrue([for rule in concat(cloudflare_ruleset.firewall.rules, cloudflare_ruleset.limits.rules) : rule.action == "block"])
    error_message = "actions"
  }
  assert {
    condition     = length(cloudflare_ruleset.limits.rules) == 2 && length(cloudflare_ruleset.managed) == 0
    error_message = "limits"
  }
  assert {
    condition     = strcontains(cloudflare_ruleset.firewall.rules[3].expression, "\"/v1/files\" or starts_with(http.request.uri.path, \"/v1/files/\")")
    error_message = "paths are those after the rewrite"
  }
}

run "workloads_with_a_service_token_pass_beside_people" {
  variables {
    service_token_ids = ["f174e90a-fafe-4643-bbbc-4a0ed4fc8415"]
  }
  assert {
    condition     = cloudflare_zero_trust_access_policy.workloads[0].decision == "non_identity" && cloudflare_zero_trust_access_policy.workloads[0].include[0].service_token.token_id == "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
    error_message = "policy"
  }
  assert {
    condition     = [for policy in cloudflare_zero_trust_access_application.people["api.example.com"].policies : policy.precedence] == [1, 2]
    error_message = "precedence"
  }
}

run "groups_of_every_kind_of_provider" {
  variables {
    email_domains = []
    groups = [
      { kind = "azure_ad", identity_provider_id = "11111111-2222-4333-8444-555555555555", name = "6a1b2c3d-0000-4000-8000-000000000000" },
      { kind = "okta", identity_provider_id = "11111111-2222-4333-8444-555555555555", name = "gate" },
      { kind = "gsuite", identity_provider_id = "11111111-2222-4333-8444-555555555555", name = "gate@example.com" },
      { kind = "saml", identity_provider_id = "11111111-2222-4333-8444-555555555555", name = "gate", claim = "groups" },
      { kind = "oidc", identity_provider_id = "11111111-2222-4333-8444-555555555555", name = "gate", claim = "groups" },
    ]
  }
  assert {
    condition     = length(cloudflare_zero_trust_access_policy.managed.include) == 5 && cloudflare_zero_trust_access_policy.managed.include[4].oidc.claim_value == "gate"
    error_message = "groups"
  }
}

run "access_answers_preflights_of_named_origins" {
  variables {
    allowed_origins = ["https://app.example.net"]
  }
  assert {
    condition     = cloudflare_zero_trust_access_application.people["api.example.com"].cors_headers.allow_credentials && !contains(cloudflare_zero_trust_access_application.people["api.example.com"].cors_headers.allowed_methods, "OPTIONS")
    error_message = "cors"
  }
}

run "the_token_endpoint_may_share_the_limit_of_the_hosts" {
  variables {
    rate_limits = { token = 0 }
  }
  assert {
    condition     = length(cloudflare_ruleset.limits.rules) == 1 && cloudflare_ruleset.limits.rules[0].ref == "portcullis_limit_hosts"
    error_message = "limits"
  }
}

run "nobody_named_is_refused" {
  command = plan
  variables {
    email_domains = []
  }
  expect_failures = [var.groups]
}

run "a_public_mail_domain_is_refused" {
  command = plan
  variables {
    email_domains = ["gmail.com"]
  }
  expect_failures = [var.email_domains]
}

run "a_tier_without_checks_is_refused" {
  command = plan
  variables {
    posture = { disk_encryption = false, firewall = false }
  }
  expect_failures = [var.posture]
}

run "a_platform_that_could_never_pass_is_refused" {
  command = plan
  variables {
    posture = { os_version = { mac = "14.6.0" } }
  }
  expect_failures = [var.posture]
}

run "the_machines_host_cannot_be_one_for_people" {
  command = plan
  variables {
    machines = "api.example.com"
  }
  expect_failures = [var.machines]
}

run "a_host_of_another_zone_is_refused" {
  command = plan
  variables {
    people = { "api.example.org" = { tier = "managed" } }
  }
  expect_failures = [var.people]
}

run "an_unknown_tier_is_refused" {
  command = plan
  variables {
    people = { "api.example.com" = { tier = "trusted" } }
  }
  expect_failures = [var.people]
}

run "a_wildcard_origin_is_refused" {
  command = plan
  variables {
    allowed_origins = ["https://*.example.net"]
  }
  expect_failures = [var.allowed_origins]
}

run "no_identity_provider_is_refused" {
  command = plan
  variables {
    identity_providers = []
  }
  expect_failures = [var.identity_providers]
}

run "no_limit_at_all_is_refused" {
  command = plan
  variables {
    rate_limits = { hosts = 0 }
  }
  expect_failures = [var.rate_limits]
}
