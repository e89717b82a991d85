# Images for amd64 and arm64: docker buildx bake --file docker/bake.hcl --push, from the root of a checkout.
variable "REGISTRY" { default = "registry.example" }
variable "VERSION" { default = "0.1.0" }
variable "DEBIAN" { default = "debian:bookworm-slim" }

group "default" { targets = ["image"] }

target "image" {
  name       = name
  matrix     = { name = ["fog", "device", "broker"] }
  context    = "."
  dockerfile = "docker/Dockerfile"
  target     = name
  args       = { DEBIAN = DEBIAN }
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${REGISTRY}/edgemw-${name}:${VERSION}"]
}
