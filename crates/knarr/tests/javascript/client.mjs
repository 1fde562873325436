// What a program does with the JavaScript client: typed and dynamic, watches, informers, patches and server-side apply.

import assert from 'node:assert/strict';
import {createRequire} from 'node:module';

const k8s = createRequire(`${process.env.NODE_PATH}/`)('@kubernetes/client-node');
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const namespace = 'javascript';

async function refused(work, code, reason) {
    try {
        await work;
    } catch (error) {
        const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.deepEqual([error.code, body.kind, body.reason], [code, 'Status', reason]);
        return;
    }
    assert.fail(`${reason} was expected`);
}

function within(seconds, what, begin) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${what} did not happen`)), seconds * 1000);
        begin((value) => {
            clearTimeout(timer);
            resolve(value);
        }, reject);
    });
}

const version = await config.makeApiClient(k8s.VersionApi).getCode();
assert.equal(version.minor, '37');
await core.createNamespace({body: {metadata: {name: namespace}}});

// Typed objects, selectors, pages.
for (let number = 0; number < 7; number += 1) {
    const metadata = {name: `map-${number}`, labels: {odd: `${number % 2}`}};
    await core.createNamespacedConfigMap({namespace, body: {metadata, data: {n: `${number}`}}});
}
const odd = await core.listNamespacedConfigMap({namespace, labelSelector: 'odd=1'});
assert.deepEqual(odd.items.map((item) => item.data.n), ['1', '3', '5']);
const names = [];
let page;
do {
    page = await core.listNamespacedConfigMap({namespace, limit: 3, _continue: page?.metadata._continue});
    names.push(...page.items.map((item) => item.metadata.name));
} while (page.metadata._continue);
assert.deepEqual(names.filter((name) => name.startsWith('map-')), [0, 1, 2, 3, 4, 5, 6].map((n) => `map-${n}`));

// Conflicts and what is missing.
const one = await core.readNamespacedConfigMap({namespace, name: 'map-1'});
assert.ok(one.metadata.creationTimestamp instanceof Date);
const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
const patched = await core.patchNamespacedConfigMap({namespace, name: 'map-1', body: {data: {more: 'yes'}}}, merge);
assert.deepEqual(patched.data, {n: '1', more: 'yes'});
one.data.n = '11';
await refused(core.replaceNamespacedConfigMap({namespace, name: 'map-1', body: one}), 409, 'Conflict');
await refused(core.readNamespacedConfigMap({namespace, name: 'none'}), 404, 'NotFound');
await refused(core.createNamespace({body: {metadata: {name: namespace}}}), 409, 'AlreadyExists');
await refused(core.createNamespace({body: {metadata: {name: 'A B'}}}), 422, 'Invalid');
const removal = [{op: 'remove', path: '/data/more'}];
const asJson = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch);
const less = await core.patchNamespacedConfigMap({namespace, name: 'map-1', body: removal}, asJson);
assert.deepEqual(less.data, {n: '1'});

// A watch from where a list ended.
const path = `/api/v1/namespaces/${namespace}/configmaps`;
const {metadata: {resourceVersion}} = await core.listNamespacedConfigMap({namespace});
await within(30, 'the deletion', async (resolve, reject) => {
    const watch = new k8s.Watch(config);
    const seen = (phase, object) => resolve([phase, object.metadata.name]);
    const request = await watch.watch(path, {resourceVersion}, seen, (error) => error && reject(error));
    await core.deleteNamespacedConfigMap({namespace, name: 'map-0'});
    setTimeout(() => request.abort(), 1000);
}).then((event) => assert.deepEqual(event, ['DELETED', 'map-0']));

// An informer: its cache has what the list had, and follows.
const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({namespace}));
await within(30, 'the new object', async (resolve, reject) => {
    informer.on('add', (object) => object.metadata.name === 'late' && resolve());
    informer.on('error', reject);
    await informer.start();
    assert.equal(informer.list(namespace).filter((object) => object.metadata.name.startsWith('map-')).length, 6);
    await core.createNamespacedConfigMap({namespace, body: {metadata: {name: 'late'}}});
});
await informer.stop();

// A Deployment without pods: its scale.
const labels = {app: 'js'};
const template = {metadata: {labels}, spec: {containers: [{name: 'main', image: 'none:1'}]}};
const deployment = {metadata: {name: 'js'}, spec: {replicas: 0, selector: {matchLabels: labels}, template}};
await apps.createNamespacedDeployment({namespace, body: deployment});
const scale = await apps.readNamespacedDeploymentScale({namespace, name: 'js'});
assert.equal(scale.status.selector, 'app=js');

// Dynamic: a kind that is defined now, and server-side apply with its conflicts.
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const schema = {type: 'object', properties: {spec: {type: 'object', properties: {size: {type: 'integer'}}}}};
await objects.create({
    apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition',
    metadata: {name: 'beans.js.knarr.example'},
    spec: {
        group: 'js.knarr.example', scope: 'Namespaced', names: {kind: 'Bean', plural: 'beans'},
        versions: [{name: 'v1', served: true, storage: true, schema: {openAPIV3Schema: schema}}],
    },
});
const bean = (size) => ({
    apiVersion: 'js.knarr.example/v1', kind: 'Bean', metadata: {name: 'bean', namespace}, spec: {size},
});
const apply = (manager, size, force) =>
    objects.patch(bean(size), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
assert.equal((await apply('a', 3)).spec.size, 3);
await refused(apply('b', 4), 409, 'Conflict');
assert.equal((await apply('b', 4, true)).spec.size, 4);
const read = await objects.read(bean());
assert.deepEqual(read.metadata.managedFields.map((entry) => entry.manager), ['b']);
const list = await objects.list('js.knarr.example/v1', 'Bean', namespace);
assert.equal(list.items.length, 1);
await objects.delete(bean());
await refused(objects.read(bean()), 404, 'NotFound');

await core.deleteNamespace({name: namespace});
console.log('all of it');
