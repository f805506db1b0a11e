terraform {
  required_version = ">= 1.9, < 2.0"

  required_providers {
    # Exact, because what is written here was compared with the schema of this version. `terraform init` writes the
    # lock file with the provider's checksums: commit it.
    cloudflare = {
      source  = "cloudflare/cloudflare"
      version = "5.14.0"
    }
  }
}

# The token comes from CLOUDFLARE_API_TOKEN and from nowhere else, so that no file here can hold it.
provider "cloudflare" {}
