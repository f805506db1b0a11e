# A rule holds for one platform, so each kind of check is a group in which one rule must pass, and a managed device is one
# that is in every group.

locals {
  posture_checks = merge(
    { for platform in var.platforms : "disk_encryption-${platform}" => { kind = "disk_encryption", platform = platform, version = null } if var.posture.disk_encryption },
    { for platform in var.platforms : "firewall-${platform}" => { kind = "firewall", platform = platform, version = null } if var.posture.firewall },
    { for platform, version in var.posture.os_version : "os_version-${platform}" => { kind = "os_version", platform = platform, version = version } if contains(var.platforms, platform) },
  )
}

resource "cloudflare_zero_trust_device_posture_rule" "check" {
  for_each = local.posture_checks

  account_id  = var.account_id
  name        = "portcullis: ${each.key}"
  description = "Required of managed devices."
  type        = each.value.kind
  schedule    = "5m"
  # Without an end the last good answer of a device that fell silent would count for ever.
  expiration = "15m"
  match      = [{ platform = each.value.platform }]

  input = {
    require_all      = each.value.kind == "disk_encryption" ? true : null
    enabled          = each.value.kind == "firewall" ? true : null
    operating_system = each.value.kind == "disk_encryption" ? null : each.value.platform
    operator         = each.value.kind == "os_version" ? ">=" : null
    version          = each.value.version
  }
}

resource "cloudflare_zero_trust_access_group" "posture" {
  for_each = toset([for name, check in local.posture_checks : check.kind])

  account_id = var.account_id
  name       = "portcullis: passes ${each.key}"
  include = [for name, rule in cloudflare_zero_trust_device_posture_rule.check :
    { device_posture = { integration_uid = rule.id } } if local.posture_checks[name].kind == each.key
  ]
}
