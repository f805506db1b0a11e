# From ../hosts.json, which the tunnel's configuration is rendered from and checked against as well.

variable "team" {
  description = "Name of the Cloudflare Zero Trust team: the part before .cloudflareaccess.com."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.team))
    error_message = "The team is a name only, without .cloudflareaccess.com."
  }
}

variable "zone" {
  description = "Name of the zone that every host below lies in."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.zone))
    error_message = "The zone is a lower-case domain name, such as example.com."
  }
}

variable "tunnel_id" {
  description = "Id that `cloudflared tunnel create` printed. The tunnel is not a resource here: its secret would lie in the state."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.tunnel_id))
    error_message = "The tunnel's id is a UUID in lower case."
  }
}

variable "stage" {
  description = "Stage of the API (output StageName of the stack `api`): put before every path at the edge."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_]{1,128}$", var.stage))
    error_message = "A stage's name has letters, digits and underscores only."
  }
}

variable "people" {
  description = "Hosts that people use. Each is an Access application of its own; `managed` demands a device that passes every check below, `any` does not, and which of the two it was stands signed in the assertion's audience."
  type        = map(object({ tier = string }))

  validation {
    condition     = length(var.people) > 0
    error_message = "There is at least one host for people."
  }
  validation {
    condition     = alltrue([for host, it in var.people : endswith(host, ".${var.zone}") && host == lower(host)])
    error_message = "Every host for people is a lower-case name below the zone."
  }
  validation {
    condition     = alltrue([for host, it in var.people : contains(["managed", "any"], it.tier)])
    error_message = "A tier is `managed` or `any`."
  }
}

variable "machines" {
  description = "The one host without Access: open routes and workloads, which prove themselves with signed assertions."
  type        = string

  validation {
    condition     = endswith(var.machines, ".${var.zone}") && var.machines == lower(var.machines)
    error_message = "The machines' host is a lower-case name below the zone."
  }
  validation {
    condition     = !contains(keys(var.people), var.machines)
    error_message = "The machines' host has no Access and therefore cannot be one for people."
  }
}

# From terraform.tfvars: the account and who may come in.

variable "account_id" {
  description = "Cloudflare account."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{32}$", var.account_id))
    error_message = "An account's id has 32 hexadecimal digits."
  }
}

variable "zone_id" {
  description = "Zone of the hosts."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{32}$", var.zone_id))
    error_message = "A zone's id has 32 hexadecimal digits."
  }
}

variable "identity_providers" {
  description = "Ids of the identity providers people may log in with. There is no login without one of them, so that one-time codes by e-mail are a choice and not a default."
  type        = list(string)

  validation {
    condition     = length(var.identity_providers) > 0
    error_message = "Name at least one identity provider."
  }
}

variable "email_domains" {
  description = "Whoever logs in with an address of these domains may come in."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for domain in var.email_domains : can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", domain))])
    error_message = "An e-mail domain is a lower-case domain name."
  }
  validation {
    # Anybody can have an address of these, so the rule would say "everyone".
    condition = length(setintersection(var.email_domains, [
      "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "yahoo.com", "icloud.com", "proton.me", "protonmail.com", "gmx.net", "gmx.de",
    ])) == 0
    error_message = "A public mail domain would let everyone in."
  }
}

variable "groups" {
  description = "Whoever is in one of these groups of an identity provider may come in. `name` is what that provider calls it: the object id (azure_ad), the name (okta), the address (gsuite), the value of `claim` (saml, oidc)."
  type = list(object({
    kind                 = string
    identity_provider_id = string
    name                 = string
    claim                = optional(string)
  }))
  default = []

  validation {
    condition     = alltrue([for it in var.groups : contains(["azure_ad", "okta", "gsuite", "saml", "oidc"], it.kind)])
    error_message = "A group's kind is azure_ad, okta, gsuite, saml or oidc."
  }
  validation {
    condition     = alltrue([for it in var.groups : (it.claim != null) == contains(["saml", "oidc"], it.kind)])
    error_message = "Groups of saml and oidc name their claim, the others have none."
  }
  validation {
    condition     = length(var.groups) + length(var.email_domains) > 0
    error_message = "Say who may come in: groups, e-mail domains or both."
  }
}

variable "service_token_ids" {
  description = "Ids of Access service tokens that may pass on the hosts for people, for workloads whose client is registered with one. Created by hand, because their secret would lie in the state."
  type        = list(string)
  default     = []
}

variable "session_duration" {
  description = "Life of an Access assertion. What it was issued for is asked again after this time."
  type        = string
  default     = "8h"

  validation {
    condition     = can(regex("^([1-9]|1[0-9]|2[0-4])h$|^([1-9]|[1-5][0-9])m$", var.session_duration))
    error_message = "A session lasts from 1m to 24h."
  }
}

variable "allowed_origins" {
  description = "Origins of web pages that may call the hosts for people. Access answers their preflight requests itself; the API never sees one from there."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.allowed_origins : can(regex("^https://[a-z0-9.-]+(:[0-9]+)?$", origin))])
    error_message = "An origin is https://host, without a path and without a wildcard."
  }
}

variable "same_site_cookie" {
  description = "SameSite of the Access cookie. `none` is what pages of another site need (with allowed_origins)."
  type        = string
  default     = "lax"

  validation {
    condition     = contains(["strict", "lax", "none"], var.same_site_cookie)
    error_message = "SameSite is strict, lax or none."
  }
}

# What a managed device is. Each kind of check has one rule a platform; a device must pass every kind.

variable "platforms" {
  description = "Platforms that people may use."
  type        = set(string)
  default     = ["windows", "mac", "linux"]

  validation {
    condition     = length(var.platforms) > 0 && length(setsubtract(var.platforms, ["windows", "mac", "linux"])) == 0
    error_message = "Platforms are windows, mac and linux."
  }
}

variable "posture" {
  description = "Which checks a managed device must pass. os_version: the oldest version of each platform."
  type = object({
    disk_encryption = optional(bool, true)
    firewall        = optional(bool, true)
    os_version      = optional(map(string), {})
  })
  default = {}

  validation {
    condition     = var.posture.disk_encryption || var.posture.firewall || length(var.posture.os_version) > 0
    error_message = "At least one check: without any the tier `managed` would be a word."
  }
  validation {
    # A platform without a rule of some kind could never pass that kind.
    condition     = length(var.posture.os_version) == 0 || length(setsubtract(var.platforms, keys(var.posture.os_version))) == 0
    error_message = "os_version names every platform or none."
  }
  validation {
    condition     = alltrue([for version in values(var.posture.os_version) : can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", version))])
    error_message = "A version is three numbers: 14.6.0."
  }
}

# The edge's own limits.

variable "rate_limits" {
  description = "Requests an address may send in `period` seconds: to any of the hosts, and to the token endpoint (0: no rule of its own). Plans from Pro; the plan decides how many rules and which periods there are."
  type = object({
    period = optional(number, 10)
    hosts  = optional(number, 300)
    token  = optional(number, 20)
  })
  default = {}

  validation {
    condition     = contains([10, 60, 120, 300, 600, 3600], var.rate_limits.period)
    error_message = "A period is 10, 60, 120, 300, 600 or 3600 seconds."
  }
  validation {
    condition     = var.rate_limits.hosts > 0 && var.rate_limits.token >= 0
    error_message = "The hosts always have a limit."
  }
}

variable "managed_rules" {
  description = "Run Cloudflare's managed ruleset on the hosts (plans from Pro)."
  type        = bool
  default     = false
}
