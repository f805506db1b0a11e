locals {
  # One set of names for every rule: a host that is missing from a rule would be a host without that lock.
  hosts      = sort(concat(keys(var.people), [var.machines]))
  host_set   = join(" ", [for host in local.hosts : jsonencode(host)])
  on_hosts   = "http.host in {${local.host_set}}"
  edge_paths = jsondecode(file("${path.module}/../routes.json"))
}

resource "cloudflare_dns_record" "host" {
  for_each = toset(local.hosts)

  zone_id = var.zone_id
  name    = each.key
  type    = "CNAME"
  content = "${var.tunnel_id}.cfargotunnel.com"
  # Not proxied, the name would answer nothing at all: a tunnel has no address.
  proxied = true
  ttl     = 1
  comment = "portcullis"
}
