//! Projects, clusters, roles, grants and policies.

use crate::{client::Client, error::Error, transport::Call};
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use strongroom_api::{
    access::{
        Cluster, Grant, Items, NewCluster, NewGrant, NewProject, PatchProject, Policy, Project, ProjectInfo,
        ProjectList, Role,
    },
    routes,
};
use strongroom_core::{GrantId, ProjectName};

impl Client {
    /// Creates a project; the caller is granted everything in it.
    pub async fn create_project(&self, project: &NewProject) -> Result<Project, Error> {
        self.send(Method::POST, routes::PROJECTS, project).await
    }

    /// The projects the caller has a part in.
    pub async fn projects(&self) -> Result<Vec<Project>, Error> {
        let mut projects = Vec::new();
        let mut call = Call::new(Method::GET, routes::PROJECTS);
        loop {
            let page: ProjectList = self.call(call).await?.json()?;
            projects.extend(page.items);
            let Some(cursor) = page.next_cursor else { return Ok(projects) };
            call = Call::new(Method::GET, routes::PROJECTS).query("cursor", cursor.as_str());
        }
    }

    /// A project and what it demands of its secrets.
    pub async fn project(&self, name: &ProjectName) -> Result<ProjectInfo, Error> {
        self.call(Call::new(Method::GET, routes::PROJECT).query("name", name.as_str())).await?.json()
    }

    /// Changes what a project demands of its secrets; what the patch leaves out stays.
    pub async fn patch_project(&self, name: &ProjectName, patch: &PatchProject) -> Result<ProjectInfo, Error> {
        let call = Call::new(Method::PATCH, routes::PROJECT).query("name", name.as_str());
        self.call(call.json(patch, 512)?).await?.json()
    }

    /// Registers a cluster.
    pub async fn create_cluster(&self, cluster: &NewCluster) -> Result<Cluster, Error> {
        self.send(Method::POST, routes::CLUSTERS, cluster).await
    }

    /// The registered clusters.
    pub async fn clusters(&self) -> Result<Vec<Cluster>, Error> {
        self.items(Call::new(Method::GET, routes::CLUSTERS)).await
    }

    /// Removes a cluster: its workloads can no longer log in.
    pub async fn remove_cluster(&self, name: &str) -> Result<(), Error> {
        self.done(Call::new(Method::DELETE, routes::CLUSTERS).query("name", name)).await
    }

    /// Makes a role, or replaces its members.
    pub async fn put_role(&self, role: &Role) -> Result<(), Error> {
        self.done(Call::new(Method::PUT, routes::ROLES).json(role, 1024)?).await
    }

    /// A project's roles.
    pub async fn roles(&self, project: &ProjectName) -> Result<Vec<Role>, Error> {
        self.items(Call::new(Method::GET, routes::ROLES).query("project", project.as_str())).await
    }

    /// Removes a role.
    pub async fn remove_role(&self, project: &ProjectName, name: &str) -> Result<(), Error> {
        self.done(Call::new(Method::DELETE, routes::ROLES).query("project", project.as_str()).query("name", name)).await
    }

    /// Grants.
    pub async fn create_grant(&self, grant: &NewGrant) -> Result<Grant, Error> {
        self.send(Method::POST, routes::GRANTS, grant).await
    }

    /// A project's grants.
    pub async fn grants(&self, project: &ProjectName) -> Result<Vec<Grant>, Error> {
        self.items(Call::new(Method::GET, routes::GRANTS).query("project", project.as_str())).await
    }

    /// Revokes a grant.
    pub async fn revoke_grant(&self, project: &ProjectName, id: GrantId) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, routes::GRANTS).query("project", project.as_str());
        self.done(call.query("id", &id.to_string())).await
    }

    /// Writes a free-text policy, or replaces it.
    pub async fn put_policy(&self, policy: &Policy) -> Result<(), Error> {
        self.done(Call::new(Method::PUT, routes::POLICIES).json(policy, 4096)?).await
    }

    /// A project's free-text policies.
    pub async fn policies(&self, project: &ProjectName) -> Result<Vec<Policy>, Error> {
        self.items(Call::new(Method::GET, routes::POLICIES).query("project", project.as_str())).await
    }

    /// Removes a free-text policy.
    pub async fn remove_policy(&self, project: &ProjectName, name: &str) -> Result<(), Error> {
        self.done(Call::new(Method::DELETE, routes::POLICIES).query("project", project.as_str()).query("name", name))
            .await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &'static str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Call::new(method, route).json(body, 1024)?).await?.json()
    }

    async fn items<T: DeserializeOwned>(&self, call: Call) -> Result<Vec<T>, Error> {
        Ok(self.call(call).await?.json::<Items<T>>()?.items)
    }

    async fn done(&self, call: Call) -> Result<(), Error> {
        self.call(call).await.map(drop)
    }
}
