# What the tunnel's configuration is rendered from and checked against: `terraform output -json`.
output "access" {
  description = "Hosts with the audience of their Access application, as the tunnel must demand it."
  value = {
    team      = var.team
    tunnel_id = var.tunnel_id
    stage     = var.stage
    machines  = var.machines
    people = { for host, application in cloudflare_zero_trust_access_application.people : host => {
      aud  = application.aud
      tier = var.people[host].tier
    } }
  }
}

output "tunnel_cname" {
  description = "Where every host points."
  value       = "${var.tunnel_id}.cfargotunnel.com"
}
