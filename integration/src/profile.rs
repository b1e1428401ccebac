//! The engines' default seccomp profiles.

pub use husk::seccomp::engine::{DOCKER_CAPABILITIES, Host};
use oci_spec::runtime::LinuxSeccomp;

/// Docker's default profile (moby, June 2026).
pub const DOCKER: &str = include_str!("../data/seccomp/docker-default.json");
/// podman's default profile (Debian, golang-github-containers-common).
pub const PODMAN: &str = include_str!("../data/seccomp/podman-default.json");

/// The `/linux/seccomp` that an engine would write for a container on `host`.
pub fn resolve(profile: &str, host: &Host) -> Result<LinuxSeccomp, String> {
    husk::seccomp::engine::resolve(profile, host).map(|resolved| resolved.profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        architecture: "amd64",
        capabilities: &DOCKER_CAPABILITIES,
        kernel: (6, 18),
    };

    fn rules_on(profile: &LinuxSeccomp, name: &str) -> Vec<String> {
        let rules = profile.syscalls().iter().flatten();
        rules
            .filter(|rule| rule.names().iter().any(|known| known == name))
            .map(|rule| format!("{} {}", rule.action(), rule.args().iter().flatten().count()))
            .collect()
    }

    #[test]
    fn docker_by_capability() {
        let plain = resolve(DOCKER, &HOST).unwrap();
        assert_eq!(rules_on(&plain, "clone"), ["SCMP_ACT_ALLOW 1"]);
        assert_eq!(rules_on(&plain, "clone3"), ["SCMP_ACT_ERRNO 0"]);
        assert!(rules_on(&plain, "mount").is_empty());
        assert_eq!(plain.architectures().as_ref().unwrap().len(), 3);
        let admin = Host {
            capabilities: &["CAP_SYS_ADMIN"],
            ..HOST
        };
        let admin = resolve(DOCKER, &admin).unwrap();
        assert_eq!(rules_on(&admin, "clone"), ["SCMP_ACT_ALLOW 0"]);
        assert_eq!(rules_on(&admin, "clone3"), ["SCMP_ACT_ALLOW 0"]);
        assert_eq!(rules_on(&admin, "mount"), ["SCMP_ACT_ALLOW 0"]);
    }

    #[test]
    fn docker_by_kernel_and_architecture() {
        let new = resolve(DOCKER, &HOST).unwrap();
        assert_eq!(rules_on(&new, "ptrace").len(), 1);
        let old = Host {
            kernel: (4, 7),
            ..HOST
        };
        assert!(rules_on(&resolve(DOCKER, &old).unwrap(), "ptrace").is_empty());
        let s390x = Host {
            architecture: "s390x",
            ..HOST
        };
        let s390x = resolve(DOCKER, &s390x).unwrap();
        let clone = s390x.syscalls().iter().flatten();
        let mut clone = clone.filter(|rule| rule.names().contains(&"clone".to_string()));
        let rule = clone.next().unwrap();
        assert_eq!(rule.args().as_ref().unwrap()[0].index(), 1);
        assert!(clone.next().is_none());
    }

    #[test]
    fn podman_resolves_everywhere() {
        for architecture in ["amd64", "arm64", "s390x", "ppc64le", "riscv64", "loong64"] {
            let host = Host {
                architecture,
                ..HOST
            };
            let profile = resolve(PODMAN, &host).unwrap();
            assert_eq!(profile.default_errno_ret(), Some(38));
            assert!(!rules_on(&profile, "read").is_empty());
        }
    }
}
